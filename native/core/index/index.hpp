// Which blocks of which sequences are stored, in which tier and slot. One tree of runs over all tiers, one slot table
// and one eviction policy a tier, and the open reservations.
//
// The life of a block in a tier: absent -> writing (reserve) -> ready (commit) -> absent (evict, drop, clear, failed).
// A slot is free again when the tree and every Match and Reservation have let go of it.
//
// Locking: every call that reads or changes the index takes a Lock, held by the caller, as proof. `match` and `drop`
// let go of it while they hash, and take it again. A Lock must not be held while waiting for anything else.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "hashing/sequence.hpp"
#include "index/changes.hpp"
#include "index/match.hpp"
#include "index/reservation.hpp"
#include "index/run_tree.hpp"
#include "index/slot_table.hpp"
#include "index/tenants.hpp"
#include "index/types.hpp"

namespace tiercel {

struct IndexOptions {
  std::vector<std::uint32_t> capacities;   // slots per tier, fastest first
  std::vector<PolicyOptions> policies;     // per tier; empty: lru each
  std::vector<std::uint32_t> evict_batch;  // per tier: fewest slots freed at once when it is full; empty: 1 each
  std::vector<TenantOptions> tenants{};    // those that share the tiers, from number 1 on; empty: nobody does
};

struct IndexStats {
  std::uint32_t num_slots;
  std::uint32_t num_free;
  std::uint32_t num_ready;
  std::uint32_t num_writing;  // slots held by open reservations
  std::uint32_t num_pinned;   // slots held by at least one Match
  std::uint32_t num_runs;
  std::uint64_t num_evicted;
  double evicted_age_sum_s;  // over evicted blocks, the time since their last use
  EvictionAges::Counts evicted_age_counts;
  std::size_t memory_bytes;  // of the whole index, all tiers
  PolicyStats policy;
};

// Blocks that are about to leave `match`'s tier, and the slots taken for them in a slower one: block by block the same.
struct Demotion {
  Match match;
  Reservation reservation;
};

struct ExportedBlocks {
  std::vector<Key> parents;
  std::vector<Key> keys;
  std::vector<Slot> slots;
};

struct RestoredBlocks {  // least valuable first; all three of one length
  std::span<const Key> parents;
  std::span<const Key> keys;
  std::span<const Slot> slots;
};

struct ReserveOptions {
  std::int64_t owner = 0;
  std::size_t first_block = 0;
  std::size_t limit_blocks = ~std::size_t{0};
  double now_s = 0.0;
  std::uint8_t priority = 0;  // up to kPriorityMax; a path keeps the highest that it was stored with
};

struct EvictOptions {
  std::size_t num_blocks = 0;
  double now_s = 0.0;
  std::optional<std::size_t> kept_in{};  // a tier: end at the first run that could leave but is not ready there as well
  std::optional<std::size_t> spared_in{};  // a tier: leave alone what is there as well
};

class Index : public std::enable_shared_from_this<Index> {
 public:
  using Lock = std::unique_lock<std::mutex>;
  static constexpr std::size_t kNumTiersMax = 8;
  static constexpr std::size_t kVictimsExamined = 128;  // by one demote

  // std::invalid_argument names the option that is out of range.
  static std::shared_ptr<Index> create(const IndexOptions& options);

  std::mutex& mutex() noexcept { return mutex_; }
  std::size_t num_tiers() const noexcept { return tiers_.size(); }

  // now_s: seconds on any monotonic clock, here and below.
  Match match(Lock& lock, Sequence& sequence, std::size_t limit_blocks, bool touch, double now_s);
  void truncate(Lock& lock, Match& match, std::size_t num_blocks);

  // All keys up to the limit must be hashed already. Takes nothing if the tier lacks a block before first_block.
  Reservation reserve(Lock& lock, Sequence& sequence, std::size_t tier, const ReserveOptions& options);
  // Prepare to keep in `target` what `source` is about to evict: of the path of the next victim that the target lacks,
  // at most num_blocks blocks from the first missing one on. None if the next victims lack nothing there, or if it has
  // no room. Evicts nothing from the source, and from the target nothing that the source holds: it would have to be
  // brought there again.
  std::optional<Demotion> demote(Lock& lock, std::size_t source, std::size_t target, std::int64_t owner,
                                 std::size_t num_blocks, double now_s);
  // failed: empty, or one flag a block. Returns the slots that became void; those of the reservation itself are not
  // taken again before its release.
  std::vector<Slot> commit(Lock& lock, Reservation& reservation, std::span<const bool> failed);
  void abort(Lock& lock, Reservation& reservation);
  // Unpin what a commit left pinned. Idempotent.
  void release(Lock& lock, Reservation& reservation) noexcept;

  std::vector<Slot> drop(Lock& lock, Sequence& sequence, std::size_t block, std::size_t tier);
  // Where tenants share the tier, none of them loses what it has reserved.
  std::vector<Slot> evict(Lock& lock, std::size_t tier, const EvictOptions& options);
  void clear(Lock& lock);
  // What begins with the root is this tenant's from now on, recovered blocks too; blocks of it that are there change
  // hands as if they had just been recovered. Roots that nobody was given, and blocks whose beginning was lost, are
  // tenant 0's. std::invalid_argument for an unknown tenant.
  void assign(Lock& lock, const Key& root, std::size_t tenant);
  // By tenant, 0 first.
  std::vector<TenantShare> shares(Lock& lock, std::size_t tier) const;
  std::uint64_t generation(Lock&) const noexcept { return generation_; }

  ExportedBlocks export_blocks(Lock& lock, std::size_t tier) const;
  // Returns a flag a block: whether it was taken.
  std::vector<bool> restore_blocks(Lock& lock, std::size_t tier, const RestoredBlocks& blocks,
                                   std::span<const Key> roots);
  // Note what becomes ready and what leaves, up to num_changes of them until they are taken; 0: no longer. What is
  // restored is not noted.
  void watch(Lock&, std::size_t num_changes) { changes_.watch(num_changes); }
  Changes take_changes(Lock&) { return changes_.take(); }
  IndexStats stats(Lock& lock, std::size_t tier) const;
  // The first broken invariant in words, or "". Brute force.
  std::string check(Lock& lock) const;

 private:
  class VictimPrefetch;
  friend class IndexCheck;
  friend class Restore;

  struct Tier {
    SlotTable slots;
    std::uint32_t evict_batch;
    std::uint64_t num_evicted = 0;
  };
  // A run on a path and how many of its leading blocks lie on the path.
  struct Step {
    RunId run;
    std::uint32_t num_blocks;
  };
  struct Path {
    std::vector<Step> steps;
    std::uint32_t num_blocks = 0;
  };
  // What an open reservation still owns in the tree: its first num_live blocks. They are consecutive on one path, the
  // last one in last_run; a split, a drop and a clear keep this true.
  struct OpenReservation {
    RunId last_run;
    std::uint32_t num_live;
    std::uint32_t num_blocks;  // slots that it holds
    std::uint32_t first_block;
    std::size_t tier;
    std::int64_t owner;
  };
  // What an eviction must leave alone: the first num_kept blocks of `run`, what the tier `spared_in` holds too, and the
  // first run that the tier `kept_in` does not hold ready, with all that come after it.
  struct Guard {
    RunId run = kNoRun;
    std::uint32_t num_kept = 0;
    std::optional<std::size_t> spared_in = std::nullopt;
    std::optional<std::size_t> kept_in = std::nullopt;
  };

  explicit Index(const IndexOptions& options);

  Path walk(Lock& lock, Sequence& sequence, std::uint32_t limit) const;
  bool try_walk(Lock& lock, Sequence& sequence, std::uint32_t limit, Path& path) const;
  std::optional<std::uint32_t> match_run(Lock& lock, Sequence& sequence, RunId run, std::uint32_t depth,
                                         std::uint32_t limit) const;
  bool hash_to(Lock& lock, Sequence& sequence, std::uint32_t stop) const;
  bool is_ready(std::size_t tier, RunId run, std::uint32_t at) const noexcept;
  std::uint32_t count_ready(std::size_t tier, const Step& step, std::uint32_t at) const noexcept;
  std::uint32_t count_pending(const Step& step, std::uint32_t at) const noexcept;
  std::uint32_t pin_step(const Step& step, Match& match);
  void use_path(const Path& path, std::size_t tier, Use use);
  void end_use(Path& path);

  std::uint32_t count_present(const Path& path, std::size_t tier) const noexcept;
  Guard guard_of(const Path& path, std::size_t tier) const noexcept;
  void find_writers(const Path& path, std::size_t tier, std::vector<BlockRange>& attached) const;
  bool may_leave(std::size_t tier, RunId run) const noexcept;
  bool is_kept(std::size_t tier, RunId run, std::size_t kept_in) const noexcept;
  std::size_t evict_tail(std::size_t tier, RunId run, std::uint32_t num_kept, std::size_t num_wanted,
                         std::vector<Slot>& voided);
  std::uint32_t num_guarded(const Guard& guard, RunId run) const noexcept;
  std::size_t evict_only(std::size_t tier, EvictionPolicy& policy, RunId victim, const Guard& guard,
                         std::vector<Slot>& voided);
  std::optional<std::size_t> evict_victim(std::size_t tier, EvictionPolicy& policy, RunId victim,
                                          std::size_t num_wanted, const Guard& guard, std::vector<Slot>& voided);
  void evict_own(std::size_t tier, Tenant tenant, std::size_t num_wanted, const Guard& guard,
                 std::vector<Slot>& voided);
  void evict_in_turns(std::size_t tier, std::size_t num_wanted, const Guard& guard, std::vector<Slot>& voided);
  void evict_some(std::size_t tier, std::size_t num_wanted, const Guard& guard, std::vector<Slot>& voided);
  std::uint32_t make_room(std::size_t tier, Tenant tenant, std::uint32_t num_wanted, const Guard& guard,
                          std::vector<Slot>& voided);
  Path path_to(std::size_t tier, RunId last) const;
  std::uint32_t count_ready_from(std::size_t tier, const Step& step) const noexcept;
  static void shorten(Path& path, std::uint32_t num_blocks);
  const Key& key_before(const Path& path, std::uint32_t block) const;
  void pin_path(std::size_t tier, const Path& path, std::uint32_t first, Match& match, std::vector<Key>& keys);
  std::size_t peek_victims(std::size_t tier, std::span<RunId> victims) const;
  Path next_leaving(std::size_t source, std::size_t target) const;

  void take_slots(Reservation& reservation, std::uint32_t num_blocks);
  void fill_run(std::size_t tier, RunId run, std::span<const Slot> slots);
  RunId add_runs(std::size_t tier, RunId last, const Key& root, std::span<const Key> keys, std::span<const Slot> slots,
                 std::uint8_t priority);
  void insert(const Path& path, const Key& root, const Reservation& reservation, std::uint8_t priority);
  RunId split(RunId tail, std::uint32_t at);

  std::uint32_t new_reservation();
  void set_ready(std::size_t tier, const OpenReservation& open, std::uint32_t num_ready);
  void cut_run(std::size_t tier, RunId run, std::uint32_t at, std::vector<Slot>& voided);
  void cut(std::size_t tier, RunId run, std::uint32_t at, std::vector<Slot>& voided);

  std::mutex mutex_;
  RunTree tree_;
  std::vector<Tier> tiers_;
  std::vector<OpenReservation> reservations_;
  std::vector<std::uint32_t> unused_reservations_;
  ChangeLog changes_;
  std::uint64_t generation_ = 0;
};

}  // namespace tiercel
