#include "index/run_tree.hpp"

#include <algorithm>
#include <utility>

namespace tiercel {

RunTree::RunTree(std::span<const std::uint32_t> capacities, std::span<const PolicyOptions> policies,
                 std::span<const TenantOptions> tenants, std::size_t num_runs)
    : runs_(num_runs), num_tenants_(tenants.size() + 1), table_(runs_, num_runs), unused_(num_runs) {
  tiers_.reserve(capacities.size());  // policies keep references
  for (std::size_t tier = 0; tier < capacities.size(); ++tier) {
    Tier& added = tiers_.emplace_back(num_runs);
    for (std::size_t tenant = 0; tenant < num_tenants_; ++tenant) {
      TenantShare share{.num_held = 0, .reserve = 0, .limit = capacities[tier], .num_evicted = 0};
      if (tenant != kEverybody) share.reserve = tenants[tenant - 1].reserves[tier];
      if (tenant != kEverybody) share.limit = tenants[tenant - 1].limits[tier];
      const TierView view{runs_, added.runs, num_runs, capacities[tier], static_cast<Tenant>(tenant)};
      added.tenants.push_back({make_eviction_policy(policies[tier], view), share});
    }
  }
}

RunTree::~RunTree() {
  for (RunId id = 0; id < run_end_; ++id) {
    if (runs_[id].num_blocks != 0) free_arrays(id);  // the large ones do not lie in the pool's slabs
  }
}

std::size_t RunTree::num_bytes() const noexcept {
  std::size_t num_bytes = run_end_ * sizeof(Run) + table_.num_bytes() + pool_.num_bytes() + roots_.num_bytes();
  num_bytes += num_unused_ * sizeof(RunId);
  for (const Tier& tier : tiers_) {
    num_bytes += tier.run_end * sizeof(TierRun);
    for (const Holding& holding : tier.tenants) num_bytes += holding.policy->num_bytes();
  }
  return num_bytes;
}

RunId RunTree::new_run() {
  ++num_runs_;
  return num_unused_ == 0 ? run_end_++ : unused_[--num_unused_];
}

void RunTree::link_child(RunId parent, RunId id) noexcept {
  Run& child = runs_[id];
  child.parent = parent;
  child.previous_sibling = kNoRun;
  child.next_sibling = kNoRun;
  if (parent == kNoRun) return;
  child.next_sibling = runs_[parent].first_child;
  if (child.next_sibling != kNoRun) runs_[child.next_sibling].previous_sibling = id;
  runs_[parent].first_child = id;
}

void RunTree::unlink_child(RunId id) noexcept {
  const Run& child = runs_[id];
  (child.previous_sibling == kNoRun ? runs_[child.parent].first_child : runs_[child.previous_sibling].next_sibling) =
      child.next_sibling;
  if (child.next_sibling != kNoRun) runs_[child.next_sibling].previous_sibling = child.previous_sibling;
}

RunId RunTree::add_child(RunId parent, const Key& root, std::span<const Key> keys, std::uint8_t priority) {
  const RunId id = new_run();
  Run& run = runs_[id];
  run.num_blocks = static_cast<std::uint32_t>(keys.size());
  run.capacity = static_cast<std::uint32_t>(SlabPool::round_length(keys.size()));
  run.keys = new_keys(id, run.capacity);
  std::copy(keys.begin(), keys.end(), run.keys);
  run.first_key = keys[0];
  run.first_child = kNoRun;
  run.depth = parent == kNoRun ? 0 : runs_[parent].depth + runs_[parent].num_blocks;
  run.root = roots_.acquire(root);
  run.tenant = parent == kNoRun ? roots_.tenant_of(root) : runs_[parent].tenant;
  run.priority = priority;
  link_child(parent, id);
  table_.insert(id);
  return id;
}

void RunTree::append(RunId id, std::span<const Key> keys) {
  Run& run = runs_[id];
  const std::uint32_t old_length = run.num_blocks;
  const std::uint32_t length = old_length + static_cast<std::uint32_t>(keys.size());
  if (length > run.capacity) set_capacity(id, length);
  std::copy(keys.begin(), keys.end(), run.keys + old_length);
  run.num_blocks = length;
}

void RunTree::set_capacity(RunId id, std::uint32_t num_blocks) {
  Run& run = runs_[id];
  const auto capacity = static_cast<std::uint32_t>(SlabPool::round_length(num_blocks));
  if (capacity == run.capacity) return;
  Key* keys = new_keys(id, capacity);
  std::copy_n(run.keys, std::min(run.num_blocks, num_blocks), keys);
  free_keys(std::exchange(run.keys, keys), run.capacity);
  for (std::size_t tier = 0; tier < tiers_.size(); ++tier) {
    TierRun& held = tiers_[tier].runs[id];
    if (held.num_present == 0) continue;
    Slot* slots = new_slots(tier, id, capacity);
    std::copy_n(held.slots, held.num_present, slots);
    free_slots(std::exchange(held.slots, slots), run.capacity);
  }
  run.capacity = capacity;
}

RunId RunTree::split(RunId tail_id, std::uint32_t at) {
  ++version_;
  const RunId head_id = new_run();
  Run& head = runs_[head_id];
  Run& tail = runs_[tail_id];
  head = tail;
  head.num_blocks = at;
  head.capacity = static_cast<std::uint32_t>(SlabPool::round_length(at));
  head.keys = new_keys(head_id, head.capacity);
  std::copy_n(tail.keys, at, head.keys);
  roots_.add_use(head.root);
  table_.replace(tail_id, head_id);

  // The head takes the tail's place among its siblings; the tail becomes its only child.
  if (head.previous_sibling != kNoRun) {
    runs_[head.previous_sibling].next_sibling = head_id;
  } else if (head.parent != kNoRun) {
    runs_[head.parent].first_child = head_id;
  }
  if (head.next_sibling != kNoRun) runs_[head.next_sibling].previous_sibling = head_id;
  head.first_child = kNoRun;
  link_child(head_id, tail_id);

  for (std::size_t tier = 0; tier < tiers_.size(); ++tier) split_tier(tier, head_id, tail_id, at);
  std::copy(tail.keys + at, tail.keys + tail.num_blocks, tail.keys);
  tail.first_key = tail.keys[0];
  tail.num_blocks -= at;
  tail.depth += at;
  set_capacity(tail_id, tail.num_blocks);
  table_.insert(tail_id);
  return head_id;
}

void RunTree::split_tier(std::size_t tier, RunId head_id, RunId tail_id, std::uint32_t at) {
  EvictionPolicy& policy = policy_of(tier, tail_id);
  TierRun& head = tiers_[tier].runs[head_id];
  TierRun& tail = tiers_[tier].runs[tail_id];
  if (tail.num_present == 0) return;
  tiers_[tier].run_end = std::max(tiers_[tier].run_end, head_id + 1);
  const std::uint32_t num_head = std::min(tail.num_present, at);
  head = {new_slots(tier, head_id, runs_[head_id].capacity), num_head, 0, 0, 0, tail.last_used, 0};
  std::copy_n(tail.slots, num_head, head.slots);
  if (tail.num_writing != 0) {
    head.num_writing = static_cast<std::uint32_t>(std::count_if(head.slots, head.slots + num_head, is_writing));
  }
  policy.split(head_id, tail_id);
  if (num_head == tail.num_present) {
    free_slots(tail.slots, runs_[tail_id].capacity);
    policy.removed(tail_id);
    tail = {};
    policy.became_leaf(head_id);
    return;
  }
  head.num_children = 1;
  std::copy(tail.slots + at, tail.slots + tail.num_present, tail.slots);
  tail.num_present -= at;
  tail.num_writing -= head.num_writing;
}

void RunTree::fill(std::size_t tier, RunId id, std::span<const Slot> slots, bool writing) {
  TierRun& held = tiers_[tier].runs[id];
  const RunId parent = runs_[id].parent;
  bool is_new = false;
  if (held.num_present == 0) {
    held = {new_slots(tier, id, runs_[id].capacity), 0, 0, 0, 0, EvictionAges::kNeverUsed, 0};
    tiers_[tier].run_end = std::max(tiers_[tier].run_end, id + 1);
    if (parent != kNoRun) count_child(tier, parent);
    is_new = true;
  }
  const Slot flag = writing ? kWritingBit : 0;
  for (const Slot slot : slots) held.slots[held.num_present++] = slot | flag;
  const auto num_blocks = static_cast<std::uint32_t>(slots.size());
  if (writing) held.num_writing += num_blocks;
  count_held(tiers_[tier].tenants[runs_[id].tenant], num_blocks, 0);
  EvictionPolicy& policy = policy_of(tier, id);
  is_new ? policy.inserted(id, num_blocks) : policy.grown(id, num_blocks);
}

void RunTree::count_child(std::size_t tier, RunId parent) {
  if (tiers_[tier].runs[parent].num_children++ == 0) policy_of(tier, parent).became_inner(parent);
}

void RunTree::set_ready(std::size_t tier, RunId id, std::uint32_t first, std::uint32_t stop) noexcept {
  TierRun& held = tiers_[tier].runs[id];
  for (std::uint32_t at = first; at < stop; ++at) held.slots[at] &= kSlotMask;
  held.num_writing -= stop - first;
}

inline void RunTree::leave(std::size_t tier, RunId id, EvictionPolicy& policy) {
  TierRun& held = tiers_[tier].runs[id];
  const RunId parent = runs_[id].parent;
  free_slots(held.slots, runs_[id].capacity);
  policy.removed(id);
  held = {};
  if (parent != kNoRun && --tiers_[tier].runs[parent].num_children == 0) policy.became_leaf(parent);
}

inline void RunTree::remove(RunId id) {
  Run& run = runs_[id];
  table_.erase(id);
  if (run.parent != kNoRun) unlink_child(id);
  roots_.release(run.root);
  if (run.capacity != 1) free_arrays(id);
  run.num_blocks = 0;
  unused_[num_unused_++] = id;
  --num_runs_;
}

void RunTree::trim(std::size_t tier, RunId id, std::uint32_t num_present, std::uint32_t num_writing, Leave leave_by) {
  Tier& left = tiers_[tier];
  TierRun& held = left.runs[id];
  const std::uint32_t old_present = held.num_present;
  held.num_present = num_present;
  held.num_writing -= num_writing;
  Holding& holding = left.tenants[runs_[id].tenant];
  if (leave_by == Leave::kEvicted) {
    left.ages.add(held.last_used, holding.policy->now_s(), old_present - num_present);
    holding.share.num_evicted += old_present - num_present;
  }
  holding.policy->trimmed(id, num_present, old_present, leave_by);
  count_held(holding, 0, old_present - num_present);
  if (num_present == 0) leave(tier, id, *holding.policy);
  std::uint32_t length = 0;
  for (const Tier& other : tiers_) length = std::max(length, other.runs[id].num_present);
  Run& run = runs_[id];
  if (length == run.num_blocks) return;
  ++version_;
  if (length == 0) {
    remove(id);
  } else {
    run.num_blocks = length;
  }
}

void RunTree::free_arrays(RunId id) noexcept {
  const Run& run = runs_[id];
  free_keys(run.keys, run.capacity);
  for (Tier& tier : tiers_) {
    if (tier.runs[id].num_present != 0) free_slots(tier.runs[id].slots, run.capacity);
  }
}

void RunTree::use(std::size_t tier, RunId id, Use use, RunId stop) {
  Tier& used = tiers_[tier];
  const double now_s = used.tenants[kEverybody].policy->now_s();
  const float stamp = use == Use::kRestore ? EvictionAges::kNeverUsed : used.ages.stamp(now_s);
  if (id == stop) return;
  EvictionPolicy& policy = policy_of(tier, id);  // a path has one tenant
  for (; id != stop; id = runs_[id].parent) {
    used.runs[id].last_used = stamp;
    policy.used(id, use);
  }
}

void RunTree::raise(RunId id, std::uint8_t priority) {
  for (; id != kNoRun && runs_[id].priority < priority; id = runs_[id].parent) {
    const std::uint8_t old_priority = std::exchange(runs_[id].priority, priority);
    for (Tier& tier : tiers_) {
      if (tier.runs[id].num_present != 0) tier.tenants[runs_[id].tenant].policy->raised(id, old_priority);
    }
  }
}

void RunTree::clear() {
  ++version_;
  for (RunId id = 0; id < run_end_; ++id) {
    if (runs_[id].num_blocks == 0) continue;
    for (Tier& tier : tiers_) {
      if (tier.runs[id].num_present == 0) continue;
      free_slots(tier.runs[id].slots, runs_[id].capacity);
      tier.runs[id] = {};
    }
    remove(id);
  }
  for (Tier& tier : tiers_) {
    for (Holding& holding : tier.tenants) {
      holding.policy->clear();
      count_held(holding, 0, holding.share.num_held);
    }
  }
}

}  // namespace tiercel
