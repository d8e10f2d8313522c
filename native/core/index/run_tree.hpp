// The radix tree of runs over all tiers: shape, keys, and which blocks of a run each tier holds in which slot.
//
// A run is a compressed edge: consecutive blocks of one path. Keys are chained, so a run's first key names its whole
// path; one table from first keys to runs finds every child and no run holds a container of children.
//
// Per tier, the blocks present are prefix-closed: of a run, a tier holds a prefix, and it holds any of it only if it
// holds all of the parent. A run ends where its longest prefix ends, and is gone when no tier holds any of it.
//
// Slots' owners and pins are not known here: callers trim a prefix after they have dealt with its slots. Not
// thread-safe.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "index/eviction_ages.hpp"
#include "index/key_table.hpp"
#include "index/lazy_array.hpp"
#include "index/policy.hpp"
#include "index/prefetch.hpp"
#include "index/root_table.hpp"
#include "index/run.hpp"
#include "index/slab_pool.hpp"
#include "index/slot_table.hpp"
#include "index/tenants.hpp"
#include "index/types.hpp"
#include "key.hpp"

namespace tiercel {

class RunTree {
 public:
  // num_runs: most runs ever alive at once. Enough if it is the number of slots over all tiers, since every run holds
  // a slot somewhere; one more for the run that is being built.
  // One tier for each capacity, in slots. tenants: the named ones, from 1 on.
  RunTree(std::span<const std::uint32_t> capacities, std::span<const PolicyOptions> policies,
          std::span<const TenantOptions> tenants, std::size_t num_runs);
  ~RunTree();
  RunTree(const RunTree&) = delete;
  RunTree& operator=(const RunTree&) = delete;

  std::size_t num_tiers() const noexcept { return tiers_.size(); }
  const Run& run(RunId id) const noexcept { return runs_[id]; }
  const TierRun& tier_run(std::size_t tier, RunId id) const noexcept { return tiers_[tier].runs[id]; }
  Slot* slots(std::size_t tier, RunId id) noexcept { return tiers_[tier].runs[id].slots; }
  const Key& root(RunId id) const noexcept { return roots_.key(runs_[id].root); }
  const Key& last_key(RunId id) const noexcept { return runs_[id].keys[runs_[id].num_blocks - 1]; }
  std::size_t num_tenants() const noexcept { return num_tenants_; }
  // Whether there are others than tenant 0. If not, nothing here costs or decides anything.
  bool is_shared() const noexcept { return num_tenants_ > 1; }
  Tenant tenant_of(const Key& root) const { return roots_.tenant_of(root); }
  const TenantShare& share(std::size_t tier, Tenant tenant) const noexcept {
    return tiers_[tier].tenants[tenant].share;
  }
  const EvictionPolicy& policy(std::size_t tier, Tenant tenant) const noexcept {
    return *tiers_[tier].tenants[tenant].policy;
  }
  EvictionPolicy& policy(std::size_t tier, Tenant tenant) noexcept { return *tiers_[tier].tenants[tenant].policy; }
  // Tell the tier's policies the time.
  void advance(std::size_t tier, double now_s) noexcept {
    for (Holding& holding : tiers_[tier].tenants) holding.policy->advance(now_s);
  }
  // All runs of the tier, least valuable first, children before parents. It walks the tier.
  std::vector<RunId> order(std::size_t tier) const;
  PolicyStats policy_stats(std::size_t tier) const;
  const EvictionAges& eviction_ages(std::size_t tier) const noexcept { return tiers_[tier].ages; }

  // Run numbers in use are below this one.
  RunId run_end() const noexcept { return run_end_; }
  std::uint32_t num_runs() const noexcept { return num_runs_; }
  std::size_t num_bytes() const noexcept;

  // Counts the changes after which a run number and an offset in it may name other blocks than before.
  std::uint64_t version() const noexcept { return version_; }

  // The child of `parent` (kNoRun: the top) that begins with `key`, or kNoRun.
  RunId find_child(RunId parent, const Key& key) const { return table_.find(parent, key); }

  // A new run below `parent`'s end. No tier holds any of it: `fill` must follow. keys must not be empty.
  RunId add_child(RunId parent, const Key& root, std::span<const Key> keys, std::uint8_t priority);
  // Lengthen a run that has no children; `fill` must follow.
  void append(RunId id, std::span<const Key> keys);
  // Cut a run in two before block `at`, 0 < at < num_blocks. The tail keeps the number; returns the head's.
  RunId split(RunId tail, std::uint32_t at);

  // `tier` holds the next slots.size() blocks of the run too, in these slots, ready or being written.
  void fill(std::size_t tier, RunId id, std::span<const Slot> slots, bool writing);
  // Blocks [first, stop) of the run, all being written, are ready.
  void set_ready(std::size_t tier, RunId id, std::uint32_t first, std::uint32_t stop) noexcept;
  // `tier` holds only the first num_present blocks from now on. Needs: none of its children in the tier if that is less
  // than the whole run; the blocks trimmed include num_writing ones that are still being written.
  void trim(std::size_t tier, RunId id, std::uint32_t num_present, std::uint32_t num_writing, Leave leave);

  // Report the use of the path from `id` up to, and without, its ancestor `stop` to the tier's policy.
  void use(std::size_t tier, RunId id, Use use, RunId stop = kNoRun);
  // Whatever begins with the root is this tenant's, from now on. What is there counts as recovered just now. It walks
  // the tiers.
  void assign(const Key& root, Tenant tenant);
  // The path up from `id` has at least this priority.
  void raise(RunId id, std::uint8_t priority);

  // Fetch into the processor's cache what evicting the run will need, in three steps, each some time after the one
  // before: each miss would otherwise be waited for. The third needs what the second returned.
  void prefetch_run(std::size_t tier, RunId id) const noexcept {
    tiercel::prefetch(&runs_[id]);
    tiercel::prefetch(&tiers_[tier].runs[id]);
  }
  const RunLink* prefetch_end(std::size_t tier, RunId id, const SlotTable& slots) const noexcept {
    const Run& run = runs_[id];
    const TierRun& held = tiers_[tier].runs[id];
    if (run.parent != kNoRun) tiercel::prefetch(&tiers_[tier].runs[run.parent]);
    if (run.capacity == 1) {
      slots.prefetch(held.only_slot & kSlotMask);
    } else {
      tiercel::prefetch(held.slots + held.num_present - 1);
    }
    return table_.prefetch_bucket(id);
  }
  void prefetch_chain(RunId id, const RunLink* bucket) const noexcept { table_.prefetch_chain(id, bucket); }

  // Forget all runs.
  void clear();

 private:
  // What one tenant has of a tier.
  struct Holding {
    std::unique_ptr<EvictionPolicy> policy;
    TenantShare share;
  };
  struct Tier {
    explicit Tier(std::size_t num_runs) : runs(num_runs) {}

    LazyArray<TierRun> runs;  // all zero where the tier holds nothing
    std::vector<Holding> tenants;
    EvictionAges ages;
    RunId run_end = 0;  // run numbers ever held are below this one
  };

  RunId new_run();
  void remove(RunId id);
  void link_child(RunId parent, RunId id) noexcept;
  void unlink_child(RunId id) noexcept;
  void set_capacity(RunId id, std::uint32_t num_blocks);
  void split_tier(std::size_t tier, RunId head, RunId tail, std::uint32_t at);
  void count_child(std::size_t tier, RunId parent);
  void free_arrays(RunId id) noexcept;
  void leave(std::size_t tier, RunId id, EvictionPolicy& policy);
  EvictionPolicy& policy_of(std::size_t tier, RunId id) noexcept { return policy(tier, runs_[id].tenant); }
  void count_held(Holding& holding, std::uint32_t num_entered, std::uint32_t num_left) const noexcept {
    holding.share.num_held += num_entered - num_left;
    if (is_shared()) holding.policy->set_num_slots(std::max(holding.share.num_held, holding.share.reserve));
  }
  void hand_over(std::size_t tier, std::span<const RunId> runs, Tenant source, Tenant target);
  Key* new_keys(RunId id, std::uint32_t capacity) {
    return capacity == 1 ? &runs_[id].first_key : static_cast<Key*>(pool_.allocate(std::size_t{capacity} * 4));
  }
  Slot* new_slots(std::size_t tier, RunId id, std::uint32_t capacity) {
    return capacity == 1 ? &tiers_[tier].runs[id].only_slot : static_cast<Slot*>(pool_.allocate(capacity));
  }
  void free_keys(Key* keys, std::uint32_t capacity) noexcept {
    if (capacity != 1) pool_.free(keys, std::size_t{capacity} * 4);
  }
  void free_slots(Slot* slots, std::uint32_t capacity) noexcept {
    if (capacity != 1) pool_.free(slots, capacity);
  }

  LazyArray<Run> runs_;
  std::vector<Tier> tiers_;
  std::size_t num_tenants_;
  KeyTable table_;
  SlabPool pool_;
  RootTable roots_;
  LazyArray<RunId> unused_;  // a stack of numbers below run_end_
  std::size_t num_unused_ = 0;
  RunId run_end_ = 0;
  std::uint32_t num_runs_ = 0;
  std::uint64_t version_ = 0;
};

}  // namespace tiercel
