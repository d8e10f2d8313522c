// Index: how blocks that are being written become ready, and how blocks leave by other ways than eviction.
//
// An open reservation owns in the tree a leading part of its blocks, consecutive on one path: a block leaves a tier
// only together with all its descendants there. So what it still owns is a count and the run of the last one, and
// whatever moves blocks between runs or takes them out keeps these two right.
#include <algorithm>
#include <stdexcept>

#include "index/index.hpp"

namespace tiercel {

std::uint32_t Index::new_reservation() {
  if (unused_reservations_.empty()) {
    unused_reservations_.push_back(static_cast<std::uint32_t>(reservations_.size()));
    reservations_.push_back({});
  }
  const std::uint32_t number = unused_reservations_.back();
  unused_reservations_.pop_back();
  return number;
}

RunId Index::split(RunId tail, std::uint32_t at) {
  const RunId head = tree_.split(tail, at);
  const std::uint32_t end = tree_.run(tail).depth;
  for (std::size_t tier = 0; tier < tiers_.size(); ++tier) {
    const TierRun& held = tree_.tier_run(tier, head);
    if (held.num_writing == 0) continue;
    for (std::uint32_t position = 0; position < held.num_present; ++position) {
      if (!is_writing(held.slots[position])) continue;
      OpenReservation& open = reservations_[tiers_[tier].slots.reservation_of(held.slots[position] & kSlotMask)];
      if (open.first_block + open.num_live <= end) open.last_run = head;
    }
  }
  return head;
}

// Make the first num_ready blocks of an open reservation ready, from the last run upwards.
void Index::set_ready(std::size_t tier, const OpenReservation& open, std::uint32_t num_ready) {
  const std::uint32_t stop = open.first_block + num_ready;
  if (num_ready == 0) return;
  for (RunId id = open.last_run;; id = tree_.run(id).parent) {
    const std::uint32_t depth = tree_.run(id).depth;
    if (depth < stop) {
      const TierRun& held = tree_.tier_run(tier, id);
      const std::uint32_t first = std::max(open.first_block, depth) - depth;
      const std::uint32_t last = std::min(stop - depth, held.num_present);
      tree_.set_ready(tier, id, first, last);
      for (std::uint32_t at = first; at < last; ++at) {
        tiers_[tier].slots.make_ready(held.slots[at]);
        changes_.add(Change::kReady, tier, tree_.run(id).keys[at]);
      }
    }
    if (depth <= open.first_block) return;
  }
}

// Take the blocks of one run from `at` on out of the tier. Its children must have left already.
void Index::cut_run(std::size_t tier, RunId run, std::uint32_t at, std::vector<Slot>& voided) {
  const TierRun& held = tree_.tier_run(tier, run);
  const std::uint32_t depth = tree_.run(run).depth;
  SlotTable& slots = tiers_[tier].slots;
  std::uint32_t num_writing = 0;
  for (std::uint32_t position = held.num_present; position-- > at;) {
    const Slot entry = held.slots[position];
    if (!is_writing(entry)) {
      slots.disown(entry);
      voided.push_back(entry);
      changes_.add(Change::kGone, tier, tree_.run(run).keys[position]);
      continue;
    }
    // Its reservation keeps the slot until it ends.
    ++num_writing;
    OpenReservation& open = reservations_[slots.reservation_of(entry & kSlotMask)];
    open.num_live = depth + position - open.first_block;
    open.last_run = position == 0 ? tree_.run(run).parent : run;
  }
  tree_.trim(tier, run, at, num_writing, Leave::kDropped);
}

// Take the blocks of the run from `at` on, and all their descendants, out of the tier.
void Index::cut(std::size_t tier, RunId run, std::uint32_t at, std::vector<Slot>& voided) {
  std::vector<RunId> subtree{run};  // parents before children
  for (std::size_t next = 0; next < subtree.size(); ++next) {
    if (tree_.tier_run(tier, subtree[next]).num_children == 0) continue;
    for (RunId child = tree_.run(subtree[next]).first_child; child != kNoRun; child = tree_.run(child).next_sibling) {
      if (tree_.tier_run(tier, child).num_present != 0) subtree.push_back(child);
    }
  }
  while (subtree.size() > 1) {
    cut_run(tier, subtree.back(), 0, voided);
    subtree.pop_back();
  }
  cut_run(tier, run, at, voided);
}

std::vector<Slot> Index::commit(Lock&, Reservation& reservation, std::span<const bool> failed) {
  if (!reservation.is_open()) throw std::invalid_argument("the reservation was committed before");
  if (!failed.empty() && failed.size() != reservation.slots.size()) {
    throw std::invalid_argument("failed: one flag for each of the reservation's blocks");
  }
  reservation.is_open_ = false;
  std::vector<Slot> voided;
  if (!reservation.number_) return voided;

  const std::size_t tier = reservation.tier;
  OpenReservation& open = reservations_[*reservation.number_];
  const auto first_failed = static_cast<std::uint32_t>(std::find(failed.begin(), failed.end(), true) - failed.begin());
  const std::uint32_t num_ready = failed.empty() ? open.num_live : std::min(open.num_live, first_failed);
  set_ready(tier, open, num_ready);
  for (std::uint32_t block = 0; block < num_ready; ++block) tiers_[tier].slots.pin(reservation.slots[block]);
  if (num_ready < open.num_live) {
    const std::uint32_t block = open.first_block + num_ready;
    RunId run = open.last_run;
    while (tree_.run(run).depth > block) run = tree_.run(run).parent;
    cut(tier, run, block - tree_.run(run).depth, voided);
  }
  // What another reservation's failure took out of the tree may be written all the same and be under copy to elsewhere.
  for (std::size_t block = reservation.slots.size(); block-- > num_ready;) {
    tiers_[tier].slots.make_pinned_only(reservation.slots[block]);
    voided.push_back(reservation.slots[block]);
  }
  reservation.num_pinned_ = reservation.slots.size();
  open = {kNoRun, 0, 0, 0, 0, 0};
  unused_reservations_.push_back(*reservation.number_);
  return voided;
}

void Index::abort(Lock& lock, Reservation& reservation) {
  const auto all_failed = std::make_unique<bool[]>(reservation.slots.size());
  std::fill_n(all_failed.get(), reservation.slots.size(), true);
  commit(lock, reservation, {all_failed.get(), reservation.slots.size()});
}

void Index::release(Lock&, Reservation& reservation) noexcept {
  for (std::size_t block = reservation.num_pinned_; block-- > 0;) {
    tiers_[reservation.tier].slots.unpin(reservation.slots[block]);
  }
  reservation.num_pinned_ = 0;
}

std::vector<Slot> Index::drop(Lock& lock, Sequence& sequence, std::size_t block, std::size_t tier) {
  if (block >= sequence.num_blocks()) throw std::invalid_argument("block: the sequence has no such full block");
  const auto limit = static_cast<std::uint32_t>(block + 1);
  const Path path = walk(lock, sequence, limit);
  std::vector<Slot> voided;
  if (count_present(path, tier) == limit) cut(tier, path.steps.back().run, path.steps.back().num_blocks - 1, voided);
  return voided;
}

void Index::clear(Lock&) {
  for (std::size_t tier = 0; tier < tiers_.size(); ++tier) {
    for (RunId id = 0; id < tree_.run_end(); ++id) {
      const TierRun& held = tree_.tier_run(tier, id);
      for (std::uint32_t at = 0; at < held.num_present; ++at) {
        if (!is_writing(held.slots[at])) tiers_[tier].slots.disown(held.slots[at]);
      }
    }
  }
  for (OpenReservation& open : reservations_) {
    open.num_live = 0;
    open.last_run = kNoRun;
  }
  tree_.clear();
  changes_.add(Change::kAllGone, 0, {});
  ++generation_;
}

}  // namespace tiercel
