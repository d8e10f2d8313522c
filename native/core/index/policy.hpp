// The seam between the index and an eviction policy: in which order runs leave one tier.
//
// Duties of the index:
//   - report everything that happens to a run in the tier, once and in the order of the calls' comments; calls come
//     under the index's lock, and `advance` before them with the time;
//   - keep runs whole in history: split a run where a use ends inside it, and ask `num_alike` before a run gets longer;
//   - report a use as `used`, run by run from the deepest to the top of the path, after any insertion at its end;
//   - take blocks off a victim's end only; pass over a victim that may not leave now or has children in the tier;
//   - keep a run's priority no lower than its children's;
//   - where tenants share the tier, ask of each run the policy of its tenant, which knows no other tenant's runs.
// Duties of the policy:
//   - `victim` names the run of lowest priority, and among those the least valuable, that has no children in the tier;
//   - no call but `order` allocates memory by the size of the tier or walks it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "index/lazy_array.hpp"
#include "index/run.hpp"

namespace tiercel {

inline constexpr std::uint8_t kPriorityMax = 100;

enum class Use : std::uint8_t {
  kLookup,   // somebody asked for the blocks: a hit
  kStore,    // a store passed through them
  kRestore,  // recovered; what is used later is worth more than what was used before
};

enum class Leave : std::uint8_t { kEvicted, kDropped };

struct PolicyOptions {
  std::string name = "lru";
  std::uint32_t slru_protected_hits = 2;  // slru: hits from which on a run is protected
  double hit_reward_s = 0.0;              // lru: what each hit adds to a run's grace
  std::uint32_t tokens_per_block = 16;    // cost: what a block of depth stands for
};

// What a policy may read of the tier. Elements never move.
struct TierView {
  const LazyArray<Run>& runs;
  LazyArray<TierRun>& held;  // of these a policy may write policy_word
  std::size_t num_runs;      // run numbers are below this one
  std::uint32_t num_slots;   // capacity of the tier in blocks
  Tenant tenant;             // whose runs the policy orders
};

struct PolicyStats {
  std::uint64_t num_protected = 0;   // blocks in the better of the policy's two parts, if it has two
  std::uint64_t num_ghosts = 0;      // evicted blocks that are remembered
  std::uint64_t num_ghost_hits = 0;  // blocks that came back while they were remembered
};

class EvictionPolicy {
 public:
  explicit EvictionPolicy(const TierView& tier) : tier_(tier), num_slots_(tier.num_slots) {}
  virtual ~EvictionPolicy() = default;
  EvictionPolicy(const EvictionPolicy&) = delete;
  EvictionPolicy& operator=(const EvictionPolicy&) = delete;

  // Time never goes back for a policy.
  void advance(double now_s) noexcept { now_s_ = std::max(now_s_, now_s); }
  double now_s() const noexcept { return now_s_; }
  // What a policy has of the tier: all of it, but where tenants share it.
  void set_num_slots(std::uint32_t num_slots) noexcept { num_slots_ = num_slots; }

  // How many of the leading `keys`, about to enter behind `run`'s last block, may join it: they will be told apart no
  // more. For kNoRun, how many may start a run together; then at least one.
  virtual std::size_t num_alike(RunId run, std::span<const Key> keys) const = 0;
  // The run's first num_blocks blocks are in the tier, and it has no children there.
  virtual void inserted(RunId run, std::uint32_t num_blocks) = 0;
  // num_blocks more blocks of the run are in the tier, joined to it by `num_alike`.
  virtual void grown(RunId run, std::uint32_t num_blocks) = 0;
  virtual void used(RunId run, Use use) = 0;
  // The first child came into the tier, or the last one left it.
  virtual void became_inner(RunId run) = 0;
  virtual void became_leaf(RunId run) = 0;
  // The run's blocks [first, stop), its last in the tier, leave it. Comes before `removed`.
  virtual void trimmed(RunId run, std::uint32_t first, std::uint32_t stop, Leave leave) = 0;
  // The tier holds nothing of the run any more, and forgets its record after this call. Its parent is still known.
  virtual void removed(RunId run) = 0;
  // `head` holds from now on the leading blocks of `tail` and is its parent, an inner run; both share tail's history.
  virtual void split(RunId head, RunId tail) = 0;
  // The run's priority is higher now than old_priority. Reported from the deepest run to the top.
  virtual void raised(RunId run, std::uint8_t old_priority) = 0;
  virtual void clear() = 0;

  // The next run to evict, or kNoRun.
  virtual RunId victim() const = 0;
  // How many blocks to take off the victim before asking again.
  virtual std::size_t num_offered() const { return ~std::size_t{0}; }
  // Do not name the run, the last victim, again before `offer_again`.
  virtual void pass_over(RunId run) = 0;
  virtual void offer_again() = 0;
  // The next victims, likely ones where the policy cannot tell exactly; the first one is `victim`'s. Children may come
  // directly before their parents. Returns how many.
  virtual std::size_t peek(std::span<RunId> victims) const = 0;
  // All runs, least valuable first, children before parents. Only for export and checks: it walks the tier.
  virtual std::vector<RunId> order() const = 0;

  virtual PolicyStats stats() const { return {}; }
  virtual std::size_t num_bytes() const = 0;

 protected:
  std::uint32_t num_slots() const noexcept { return num_slots_; }

  const TierView tier_;

 private:
  std::uint32_t num_slots_;
  double now_s_ = 0.0;
};

std::vector<std::string> eviction_policy_names();
// std::invalid_argument, naming the known ones, for an unknown name.
std::unique_ptr<EvictionPolicy> make_eviction_policy(const PolicyOptions& options, const TierView& tier);

}  // namespace tiercel
