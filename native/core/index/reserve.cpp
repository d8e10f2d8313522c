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
    guard.run = step.run;
    guard.num_kept = num_present;
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

// Take num_blocks free slots for the reservation, whose tier, owner and first block are set.
void Index::take_slots(Reservation& reservation, std::uint32_t num_blocks) {
  const std::uint32_t number = new_reservation();
  reservation.number_ = number;
  reservation.slots.resize(num_blocks);
  for (Slot& slot : reservation.slots) slot = tiers_[reservation.tier].slots.take(number);
  reservation.keys.resize(num_blocks);
}

// The tier holds the run's next blocks too, one for each of `slots`. Where they must not share a history, the run is
// cut; its end keeps the number.
void Index::fill_run(std::size_t tier, RunId run, std::span<const Slot> slots) {
  const EvictionPolicy& policy = tree_.policy(tier, tree_.run(run).tenant);
  while (!slots.empty()) {
    const std::uint32_t at = tree_.tier_run(tier, run).num_present;
    const std::span<const Key> keys(tree_.run(run).keys + at, slots.size());
    const std::size_t num_blocks = policy.num_alike(at == 0 ? kNoRun : run, keys);
    tree_.fill(tier, run, slots.first(num_blocks), true);
    slots = slots.subspan(num_blocks);
    if (!slots.empty()) split(run, at + static_cast<std::uint32_t>(num_blocks));
  }
}

// New blocks behind `last`, which the tier holds. A leaf grows in place where it may, so that storing block by block
// while decoding makes one run, not many. Returns the run of the last one.
RunId Index::add_runs(std::size_t tier, RunId last, const Key& root, std::span<const Key> keys,
                      std::span<const Slot> slots, std::uint8_t priority) {
  const EvictionPolicy& policy = tree_.policy(tier, last == kNoRun ? tree_.tenant_of(root) : tree_.run(last).tenant);
  while (!keys.empty()) {
    std::size_t num_blocks = 0;
    if (last != kNoRun && tree_.run(last).first_child == kNoRun && tree_.run(last).priority == priority) {
      num_blocks = policy.num_alike(last, keys);
    }
    if (num_blocks != 0) {
      tree_.append(last, keys.first(num_blocks));
    } else {
      num_blocks = policy.num_alike(kNoRun, keys);
      last = tree_.add_child(last, root, keys.first(num_blocks), priority);
    }
    tree_.fill(tier, last, slots.first(num_blocks), true);
    keys = keys.subspan(num_blocks);
    slots = slots.subspan(num_blocks);
  }
  return last;
}

// Put the reservation's blocks into the tree, behind what the tier holds of the path: into the slots of runs that other
// tiers hold already, and the others behind the path's end.
void Index::insert(const Path& path, const Key& root, const Reservation& reservation, std::uint8_t priority) {
  const std::size_t tier = reservation.tier;
  const std::span<const Slot> slots(reservation.slots);
  std::size_t num_done = 0;
  RunId last = kNoRun;
  for (const Step& step : path.steps) {
    if (num_done == slots.size()) break;
    last = step.run;
    const std::uint32_t num_present = tree_.tier_run(tier, step.run).num_present;
    if (num_present >= step.num_blocks) continue;
    const std::size_t num_filled = std::min<std::size_t>(step.num_blocks - num_present, slots.size() - num_done);
    fill_run(tier, step.run, slots.subspan(num_done, num_filled));
    num_done += num_filled;
  }
  if (num_done < slots.size()) {
    const std::span<const Key> keys(reservation.keys);
    last = add_runs(tier, last, root, keys.subspan(num_done), slots.subspan(num_done), priority);
  }
  const auto num_blocks = static_cast<std::uint32_t>(slots.size());
  reservations_[*reservation.number_] = {last, num_blocks,       num_blocks, reservation.first_block,
                                         tier, reservation.owner};
  tree_.use(tier, last, Use::kStore);
}

Reservation Index::reserve(Lock& lock, Sequence& sequence, std::size_t tier, const ReserveOptions& options) {
  const auto limit = static_cast<std::uint32_t>(std::min(options.limit_blocks, sequence.num_hashed_blocks()));
  Path path = walk(lock, sequence, limit);
  Reservation reservation(shared_from_this());
  reservation.tier = tier;
  reservation.owner = options.owner;
  reservation.first_block = count_present(path, tier);
  reservation.parent_key = sequence.parent_key(reservation.first_block);
  find_writers(path, tier, reservation.attached);
  if (reservation.first_block < options.first_block) {
    reservation.num_short = limit - reservation.first_block;
    return reservation;
  }

  tree_.advance(tier, options.now_s);
  end_use(path);
  if (!path.steps.empty()) tree_.raise(path.steps.back().run, options.priority);
  const std::uint32_t num_wanted = limit - reservation.first_block;
  const Tenant tenant = tree_.tenant_of(sequence.root());
  const std::uint32_t num_blocks = make_room(tier, tenant, num_wanted, guard_of(path, tier), reservation.voided);
  reservation.num_short = num_wanted - num_blocks;
  if (num_blocks == 0) {
    use_path(path, tier, Use::kStore);
    return reservation;
  }
  take_slots(reservation, num_blocks);
  sequence.copy_keys(reservation.first_block, reservation.first_block + num_blocks, reservation.keys.data());
  insert(path, sequence.root(), reservation, options.priority);
  return reservation;
}

}  // namespace tiercel
