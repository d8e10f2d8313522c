// Index: taking slots for new blocks, and evicting to make room.
#include <algorithm>
#include <array>

#include "index/index.hpp"

namespace tiercel {

Reservation::~Reservation() {
  if (!is_open() && !has_pins()) return;
  Index::Lock lock(index_->mutex());
  if (is_open_) index_->abort(lock, *this);
  index_->release(lock, *this);
}

// Leading blocks of the path that the tier holds.
std::uint32_t Index::count_present(const Path& path, std::size_t tier) const noexcept {
  std::uint32_t num_blocks = 0;
  for (const Step& step : path.steps) {
    const std::uint32_t num_present = std::min(tree_.tier_run(tier, step.run).num_present, step.num_blocks);
    num_blocks += num_present;
    if (num_present < step.num_blocks) break;
  }
  return num_blocks;
}

Index::Guard Index::guard_of(const Path& path, std::size_t tier) const noexcept {
  Guard guard;
  for (const Step& step : path.steps) {
    const std::uint32_t num_present = std::min(tree_.tier_run(tier, step.run).num_present, step.num_blocks);
    if (num_present == 0) break;
    guard = {step.run, num_present};
  }
  return guard;
}

void Index::find_writers(const Path& path, std::size_t tier, std::vector<BlockRange>& attached) const {
  for (const Step& step : path.steps) {
    const TierRun& held = tree_.tier_run(tier, step.run);
    if (held.num_writing == 0) continue;
    const std::uint32_t depth = tree_.run(step.run).depth;
    for (std::uint32_t at = 0; at < std::min(held.num_present, step.num_blocks); ++at) {
      if (!is_writing(held.slots[at])) continue;
      const std::uint32_t number = tiers_[tier].slots.reservation_of(held.slots[at] & kSlotMask);
      const std::int64_t owner = reservations_[number].owner;
      const bool goes_on = !attached.empty() && attached.back().owner == owner &&
                           attached.back().first_block + attached.back().num_blocks == depth + at;
      if (goes_on) {
        ++attached.back().num_blocks;
      } else {
        attached.push_back({depth + at, 1, owner});
      }
    }
  }
}

// Evict up to num_wanted blocks off the run's end in the tier, down to its first num_kept. Returns how many.
std::size_t Index::evict_tail(std::size_t tier, RunId run, std::uint32_t num_kept, std::size_t num_wanted,
                              std::vector<Slot>& voided) {
  const TierRun& held = tree_.tier_run(tier, run);
  SlotTable& slots = tiers_[tier].slots;
  std::uint32_t stop = held.num_present;
  while (stop > num_kept && held.num_present - stop < num_wanted) {
    const Slot entry = held.slots[stop - 1];
    if (is_writing(entry) || slots.is_pinned(entry)) break;
    slots.disown(entry);
    voided.push_back(entry);
    --stop;
  }
  const std::size_t num_evicted = held.num_present - stop;
  if (num_evicted != 0) tree_.trim(tier, run, stop, 0);
  tiers_[tier].num_evicted += num_evicted;
  return num_evicted;
}

std::size_t Index::prefetch_victims(std::size_t tier, std::size_t num_runs) const noexcept {
  std::array<RunId, 32> victims;
  const std::span<RunId> wanted = std::span<RunId>(victims).first(std::min(num_runs, victims.size()));
  const std::span<const RunId> found = tree_.prefetch_victims(tier, wanted);
  for (const RunId victim : found) tiers_[tier].slots.prefetch(tree_.tier_run(tier, victim).slots[0] & kSlotMask);
  return found.size();
}

// A leaf whose end is pinned, being written or guarded goes to the young end with its path, so that it is not met again
// soon; meeting the first such leaf a second time means that nothing else is left.
void Index::evict_some(std::size_t tier, std::size_t num_wanted, Guard guard, std::vector<Slot>& voided) {
  RunId first_spared = kNoRun;
  std::size_t num_prefetched = 0;
  while (num_wanted != 0) {
    const RunId victim = tree_.policy(tier).next_victim(kNoRun);
    if (victim == kNoRun || victim == first_spared) return;
    const std::size_t num_blocks =
        evict_tail(tier, victim, victim == guard.run ? guard.num_kept : 0, num_wanted, voided);
    num_wanted -= num_blocks;
    if (num_prefetched != 0) {
      --num_prefetched;
    } else if (num_blocks != 0 && num_wanted > num_blocks) {
      num_prefetched = prefetch_victims(tier, num_wanted / num_blocks);  // if the next ones are as long
    }
    if (num_wanted == 0 || tree_.tier_run(tier, victim).num_present == 0) continue;
    if (first_spared == kNoRun) first_spared = victim;
    tree_.touch(tier, victim);
  }
}

std::vector<Slot> Index::evict(Lock&, std::size_t tier, std::size_t num_blocks) {
  std::vector<Slot> voided;
  voided.reserve(std::min<std::size_t>(num_blocks, tiers_[tier].slots.num_ready()));
  evict_some(tier, num_blocks, {}, voided);
  return voided;
}

// The run whose end is the path's end: its last run, cut in two if the path ends inside; kNoRun for an empty path.
RunId Index::end_of(const Path& path) {
  if (path.steps.empty()) return kNoRun;
  const Step& last = path.steps.back();
  return last.num_blocks < tree_.run(last.run).num_blocks ? split(last.run, last.num_blocks) : last.run;
}

// Put the reservation's blocks into the tree: into the slots of runs that other tiers hold already, and the others
// behind the path's end. Returns the run of the last one.
RunId Index::insert(const Path& path, const Key& root, const Reservation& reservation) {
  const std::size_t tier = reservation.tier;
  const std::span<const Slot> slots(reservation.slots);
  std::size_t num_done = 0;
  RunId last = kNoRun;
  for (const Step& step : path.steps) {
    if (num_done == slots.size()) return last;
    last = step.run;
    const std::uint32_t num_present = tree_.tier_run(tier, step.run).num_present;
    if (num_present >= step.num_blocks) continue;
    const std::size_t num_filled = std::min<std::size_t>(step.num_blocks - num_present, slots.size() - num_done);
    tree_.fill(tier, step.run, slots.subspan(num_done, num_filled), true);
    num_done += num_filled;
  }
  if (num_done == slots.size()) return last;
  const std::span<const Key> keys = std::span<const Key>(reservation.keys).subspan(num_done);
  last = end_of(path);
  // A leaf grows in place, so that storing block by block while decoding makes one run, not many.
  if (last != kNoRun && tree_.run(last).first_child == kNoRun) {
    tree_.append(last, keys);
  } else {
    last = tree_.add_child(last, root, keys);
  }
  tree_.fill(tier, last, slots.subspan(num_done), true);
  return last;
}

Reservation Index::reserve(Lock& lock, Sequence& sequence, std::size_t tier, std::int64_t owner,
                           std::size_t first_block, std::size_t limit_blocks) {
  const auto limit = static_cast<std::uint32_t>(std::min(limit_blocks, sequence.num_hashed_blocks()));
  const Path path = walk(lock, sequence, limit);
  Reservation reservation(shared_from_this());
  reservation.tier = tier;
  reservation.owner = owner;
  reservation.first_block = count_present(path, tier);
  reservation.parent_key = sequence.parent_key(reservation.first_block);
  find_writers(path, tier, reservation.attached);
  if (reservation.first_block < first_block) {
    reservation.num_short = limit - reservation.first_block;
    return reservation;
  }

  SlotTable& slots = tiers_[tier].slots;
  const std::uint32_t num_wanted = limit - reservation.first_block;
  if (num_wanted > slots.num_free()) {
    const std::uint32_t num_missing = std::max(num_wanted - slots.num_free(), tiers_[tier].evict_batch);
    evict_some(tier, num_missing, guard_of(path, tier), reservation.voided);
  }
  const std::uint32_t num_blocks = std::min(num_wanted, slots.num_free());
  reservation.num_short = num_wanted - num_blocks;
  if (num_blocks == 0) {
    touch_path(path, tier);
    return reservation;
  }
  reservation.number_ = new_reservation();
  reservation.slots.resize(num_blocks);
  for (Slot& slot : reservation.slots) slot = slots.take(*reservation.number_);
  reservation.keys.resize(num_blocks);
  sequence.copy_keys(reservation.first_block, reservation.first_block + num_blocks, reservation.keys.data());
  const RunId last_run = insert(path, sequence.root(), reservation);
  reservations_[*reservation.number_] = {last_run, num_blocks, num_blocks, reservation.first_block, tier, owner};
  tree_.touch(tier, last_run);
  return reservation;
}

}  // namespace tiercel
