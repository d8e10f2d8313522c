// Index: who leaves a full tier, and what happens to it.
#include <algorithm>
#include <array>
#include <cstdlib>

#include "index/index.hpp"
#include "index/tenant_turns.hpp"

namespace tiercel {

// Whether the run's last block in the tier could be evicted.
bool Index::may_leave(std::size_t tier, RunId run) const noexcept {
  const TierRun& held = tree_.tier_run(tier, run);
  const Slot end = held.slots[held.num_present - 1];
  return !is_writing(end) && !tiers_[tier].slots.is_pinned(end);
}

// Whether all of the run that the tier holds can be read in `kept_in` too.
bool Index::is_kept(std::size_t tier, RunId run, std::size_t kept_in) const noexcept {
  const std::uint32_t num_held = tree_.tier_run(tier, run).num_present;
  const Step kept{run, std::min(tree_.tier_run(kept_in, run).num_present, num_held)};
  return count_ready_from(kept_in, kept) == num_held;
}

// Evict up to num_wanted blocks off the run's end in the tier, down to its first num_kept. Returns how many.
std::size_t Index::evict_tail(std::size_t tier, RunId run, std::uint32_t num_kept, std::size_t num_wanted,
                              std::vector<Slot>& voided) {
  const TierRun& held = tree_.tier_run(tier, run);
  SlotTable& slots = tiers_[tier].slots;
  const Slot* entries = held.slots;
  const std::uint32_t num_present = held.num_present;
  std::uint32_t stop = num_present;
  while (stop > num_kept && num_present - stop < num_wanted) {
    const Slot entry = entries[stop - 1];
    if (is_writing(entry) || slots.is_pinned(entry)) break;
    slots.disown(entry);
    voided.push_back(entry);
    --stop;
    changes_.add(Change::kGone, tier, tree_.run(run).keys[stop]);
  }
  const std::size_t num_evicted = num_present - stop;
  if (num_evicted != 0) tree_.trim(tier, run, stop, 0, Leave::kEvicted);
  tiers_[tier].num_evicted += num_evicted;
  return num_evicted;
}

// Reads ahead of an eviction: what it comes to next is on its way from memory when it comes there.
class Index::VictimPrefetch {
 public:
  VictimPrefetch(const Index& index, std::size_t tier, const EvictionPolicy& policy)
      : index_(index), tier_(tier), policy_(policy) {}

  // The eviction has come one victim further, which gave num_blocks of num_wanted that are still to come.
  void advance(std::size_t num_wanted, std::size_t num_blocks) {
    if (num_passed_ == num_known_ && !look_ahead(num_wanted / num_blocks)) return;  // if the next ones are as long
    if (num_passed_++ % kStride == 0) fetch();
  }

 private:
  bool look_ahead(std::size_t num_left) {
    if (num_left < kFewVictims) return false;
    num_known_ = policy_.peek(std::span<RunId>(victims_).first(std::min(num_left, kNumVictims)));
    num_started_ = num_ended_ = num_chained_ = num_passed_ = 0;
    return true;
  }
  void fetch() {
    const RunTree& tree = index_.tree_;
    const SlotTable& slots = index_.tiers_[tier_].slots;
    const std::size_t ahead = std::min(num_known_, num_passed_ + kRunsAhead);
    while (num_started_ < ahead) tree.prefetch_run(tier_, victims_[num_started_++]);
    const std::size_t ends_ahead = std::min(num_known_, num_passed_ + kEndsAhead);
    for (; num_ended_ < ends_ahead; ++num_ended_) {
      buckets_[num_ended_] = tree.prefetch_end(tier_, victims_[num_ended_], slots);
    }
    const std::size_t chains_ahead = std::min(num_known_, num_passed_ + kChainsAhead);
    for (; num_chained_ < chains_ahead; ++num_chained_) {
      tree.prefetch_chain(victims_[num_chained_], buckets_[num_chained_]);
    }
  }

  static constexpr std::size_t kNumVictims = 256;
  static constexpr std::size_t kFewVictims = 4;
  static constexpr std::size_t kStride = 16;
  static constexpr std::size_t kRunsAhead = 80;
  static constexpr std::size_t kEndsAhead = 48;
  static constexpr std::size_t kChainsAhead = 24;

  const Index& index_;
  std::size_t tier_;
  const EvictionPolicy& policy_;
  std::array<RunId, kNumVictims> victims_;
  std::array<const RunLink*, kNumVictims> buckets_;
  std::size_t num_known_ = 0;
  std::size_t num_started_ = 0;
  std::size_t num_ended_ = 0;
  std::size_t num_chained_ = 0;
  std::size_t num_passed_ = 0;
};

// Leading blocks of the run that the guard protects.
inline std::uint32_t Index::num_guarded(const Guard& guard, RunId run) const noexcept {
  const std::uint32_t num_kept = run == guard.run ? guard.num_kept : 0;
  return guard.spared_in ? std::max(num_kept, tree_.tier_run(*guard.spared_in, run).num_present) : num_kept;
}

// Evict the one block that the tier has of the run, or pass the run over. What `evict_tail` does, without its loop.
inline std::size_t Index::evict_only(std::size_t tier, EvictionPolicy& policy, RunId victim, const Guard& guard,
                                     std::vector<Slot>& voided) {
  Tier& left = tiers_[tier];
  const Slot entry = tree_.tier_run(tier, victim).slots[0];
  if (is_writing(entry) || left.slots.is_pinned(entry) || num_guarded(guard, victim) != 0) {
    policy.pass_over(victim);
    return 0;
  }
  left.slots.disown(entry);
  voided.push_back(entry);
  ++left.num_evicted;
  changes_.add(Change::kGone, tier, tree_.run(victim).keys[0]);
  tree_.trim(tier, victim, 0, 0, Leave::kEvicted);
  return 1;
}

// Evict up to num_wanted blocks off the policy's next victim. Returns how many, or none if the eviction must end here.
// A leaf whose end is pinned, being written or guarded is passed over, and so are the runs above it.
inline std::optional<std::size_t> Index::evict_victim(std::size_t tier, EvictionPolicy& policy, RunId victim,
                                                      std::size_t num_wanted, const Guard& guard,
                                                      std::vector<Slot>& voided) {
  if (tree_.tier_run(tier, victim).num_children != 0) {
    policy.pass_over(victim);
    return 0;
  }
  if (guard.kept_in && may_leave(tier, victim) && !is_kept(tier, victim, *guard.kept_in)) return std::nullopt;
  if (tree_.tier_run(tier, victim).num_present == 1) return evict_only(tier, policy, victim, guard, voided);
  const std::size_t num_asked = std::min(num_wanted, policy.num_offered());
  const std::size_t num_blocks = evict_tail(tier, victim, num_guarded(guard, victim), num_asked, voided);
  if (num_blocks < num_asked && tree_.tier_run(tier, victim).num_present != 0) policy.pass_over(victim);
  return num_blocks;
}

// One tenant's blocks only, whatever it has reserved.
void Index::evict_own(std::size_t tier, Tenant tenant, std::size_t num_wanted, const Guard& guard,
                      std::vector<Slot>& voided) {
  EvictionPolicy& policy = tree_.policy(tier, tenant);
  VictimPrefetch prefetch(*this, tier, policy);
  while (num_wanted != 0) {
    const RunId victim = policy.victim();
    if (victim == kNoRun) break;
    const std::optional<std::size_t> num_blocks = evict_victim(tier, policy, victim, num_wanted, guard, voided);
    if (!num_blocks) break;
    num_wanted -= *num_blocks;
    if (*num_blocks != 0) prefetch.advance(num_wanted, *num_blocks);
  }
  policy.offer_again();
}

// What tenants hold above their reserves.
void Index::evict_in_turns(std::size_t tier, std::size_t num_wanted, const Guard& guard, std::vector<Slot>& voided) {
  TenantTurns turns(tree_, tier);
  std::vector<VictimPrefetch> prefetches;
  prefetches.reserve(tree_.num_tenants());
  for (std::size_t tenant = 0; tenant < tree_.num_tenants(); ++tenant) {
    prefetches.emplace_back(*this, tier, tree_.policy(tier, static_cast<Tenant>(tenant)));
  }
  while (num_wanted != 0 && !turns.empty()) {
    TenantTurn& turn = turns.next();
    EvictionPolicy& policy = tree_.policy(tier, turn.tenant);
    const std::size_t num_asked = std::min<std::size_t>(num_wanted, turn.num_above);
    const std::optional<std::size_t> num_blocks = evict_victim(tier, policy, turn.victim, num_asked, guard, voided);
    if (!num_blocks) break;
    num_wanted -= *num_blocks;
    if (*num_blocks != 0) prefetches[turn.tenant].advance(num_wanted / turns.size(), *num_blocks);
    turns.renew(turn, static_cast<std::uint32_t>(*num_blocks), policy.victim());
  }
  for (std::size_t tenant = 0; tenant < tree_.num_tenants(); ++tenant) {
    tree_.policy(tier, static_cast<Tenant>(tenant)).offer_again();
  }
}

void Index::evict_some(std::size_t tier, std::size_t num_wanted, const Guard& guard, std::vector<Slot>& voided) {
  if (tree_.is_shared()) return evict_in_turns(tier, num_wanted, guard, voided);
  evict_own(tier, kEverybody, num_wanted, guard, voided);
}

std::vector<Slot> Index::evict(Lock&, std::size_t tier, const EvictOptions& options) {
  tree_.advance(tier, options.now_s);
  std::vector<Slot> voided;
  voided.reserve(std::min<std::size_t>(options.num_blocks, tiers_[tier].slots.num_ready()));
  evict_some(tier, options.num_blocks, {kNoRun, 0, options.spared_in, options.kept_in}, voided);
  return voided;
}

// Free what num_wanted blocks of the tenant lack in slots, and no less than a batch. Returns how many of them may have
// one. A tenant at its limit gives its own; otherwise those give who hold more than their reserve, and if that does not
// do it, it gives its own.
std::uint32_t Index::make_room(std::size_t tier, Tenant tenant, std::uint32_t num_wanted, const Guard& guard,
                               std::vector<Slot>& voided) {
  const SlotTable& slots = tiers_[tier].slots;
  if (tree_.is_shared()) {
    const TenantShare& share = tree_.share(tier, tenant);
    const std::uint64_t num_after = std::uint64_t{share.num_held} + num_wanted;
    if (num_after > share.limit) evict_own(tier, tenant, num_after - share.limit, guard, voided);
    num_wanted = std::min(num_wanted, share.limit - std::min(share.limit, share.num_held));
  }
  if (num_wanted > slots.num_free()) {
    evict_some(tier, std::max(num_wanted - slots.num_free(), tiers_[tier].evict_batch), guard, voided);
    if (tree_.is_shared() && num_wanted > slots.num_free()) {
      evict_own(tier, tenant, num_wanted - slots.num_free(), guard, voided);
    }
  }
  return std::min(num_wanted, slots.num_free());
}

// The path down to the end of what the tier has ready of a run.
Index::Path Index::path_to(std::size_t tier, RunId last) const {
  Path path;
  for (RunId run = last; run != kNoRun; run = tree_.run(run).parent) path.steps.push_back({run, 0});
  std::reverse(path.steps.begin(), path.steps.end());
  for (std::size_t number = 0; number < path.steps.size(); ++number) {
    Step& step = path.steps[number];
    step.num_blocks = tree_.tier_run(tier, step.run).num_present;
    const std::uint32_t num_ready = count_ready_from(tier, step);
    path.num_blocks += num_ready;
    if (num_ready == step.num_blocks) continue;
    step.num_blocks = num_ready;
    path.steps.resize(number + (num_ready != 0));
  }
  return path;
}

std::uint32_t Index::count_ready_from(std::size_t tier, const Step& step) const noexcept {
  std::uint32_t num_ready = 0;
  while (num_ready < step.num_blocks && is_ready(tier, step.run, num_ready)) ++num_ready;
  return num_ready;
}

// Cut the path off behind its first num_blocks.
void Index::shorten(Path& path, std::uint32_t num_blocks) {
  while (path.num_blocks > num_blocks) {
    Step& last = path.steps.back();
    const std::uint32_t num_cut = std::min(last.num_blocks, path.num_blocks - num_blocks);
    path.num_blocks -= num_cut;
    last.num_blocks -= num_cut;
    if (last.num_blocks == 0) path.steps.pop_back();
  }
}

const Key& Index::key_before(const Path& path, std::uint32_t block) const {
  if (block == 0) return tree_.root(path.steps[0].run);
  for (const Step& step : path.steps) {
    const Run& run = tree_.run(step.run);
    if (block <= run.depth + step.num_blocks) return run.keys[block - run.depth - 1];
  }
  std::abort();  // the block lies on the path
}

// Pin the blocks of the path from `first` on in the tier, which has all of them ready, and name their keys.
void Index::pin_path(std::size_t tier, const Path& path, std::uint32_t first, Match& match, std::vector<Key>& keys) {
  for (const Step& step : path.steps) {
    const Run& run = tree_.run(step.run);
    const Slot* slots = tree_.tier_run(tier, step.run).slots;
    for (std::uint32_t at = std::max(first, run.depth) - run.depth; at < step.num_blocks; ++at) {
      tiers_[tier].slots.pin(slots[at]);
      match.slots_.push_back(slots[at]);
      keys.push_back(run.keys[at]);
    }
  }
  match.segments_.push_back({static_cast<std::uint32_t>(tier), 0, static_cast<std::uint32_t>(match.slots_.size())});
}

// The next victims of the tier, as an eviction without a guard would come to them. Returns how many.
std::size_t Index::peek_victims(std::size_t tier, std::span<RunId> victims) const {
  if (!tree_.is_shared()) return tree_.policy(tier, kEverybody).peek(victims);
  TenantTurns turns(tree_, tier);
  std::vector<std::vector<RunId>> waiting(tree_.num_tenants());  // the next one last
  for (const TenantTurn& turn : turns.all()) {
    std::vector<RunId>& runs = waiting[turn.tenant];
    runs.resize(victims.size());
    runs.resize(tree_.policy(tier, turn.tenant).peek(runs));
    std::reverse(runs.begin(), runs.end());
  }
  std::size_t num_victims = 0;
  while (num_victims < victims.size() && !turns.empty()) {
    TenantTurn& turn = turns.next();
    const RunId victim = turn.victim;
    victims[num_victims++] = victim;
    std::vector<RunId>& runs = waiting[turn.tenant];
    runs.pop_back();
    turns.renew(turn, tree_.tier_run(tier, victim).num_present, runs.empty() ? kNoRun : runs.back());
  }
  return num_victims;
}

// The next of the source's victims of which the target lacks blocks that can be read, as a path; or an empty one.
Index::Path Index::next_leaving(std::size_t source, std::size_t target) const {
  std::array<RunId, kVictimsExamined> victims;
  for (const RunId victim : std::span<RunId>(victims).first(peek_victims(source, victims))) {
    const TierRun& held = tree_.tier_run(source, victim);
    if (held.num_children != 0 || tree_.tier_run(target, victim).num_present >= held.num_present) continue;
    if (!may_leave(source, victim)) continue;
    Path path = path_to(source, victim);
    if (count_present(path, target) < path.num_blocks) return path;
  }
  return {};
}

std::optional<Demotion> Index::demote(Lock&, std::size_t source, std::size_t target, std::int64_t owner,
                                      std::size_t num_blocks, double now_s) {
  tree_.advance(source, now_s);
  tree_.advance(target, now_s);
  Path path = next_leaving(source, target);
  const std::uint32_t first = count_present(path, target);
  const auto num_wanted = static_cast<std::uint32_t>(std::min<std::size_t>(path.num_blocks - first, num_blocks));
  if (num_wanted == 0) return std::nullopt;
  std::vector<Slot> voided;
  Guard guard = guard_of(path, target);
  guard.spared_in = source;
  const Tenant tenant = tree_.run(path.steps[0].run).tenant;
  const std::uint32_t num_taken = make_room(target, tenant, num_wanted, guard, voided);
  if (num_taken == 0) return std::nullopt;  // then nothing was evicted
  Demotion demotion{Match(shared_from_this(), generation_), Reservation(shared_from_this())};
  Reservation& reservation = demotion.reservation;
  reservation.tier = target;
  reservation.owner = owner;
  reservation.first_block = first;
  reservation.num_short = num_wanted - num_taken;
  reservation.voided = std::move(voided);
  find_writers(path, target, reservation.attached);
  reservation.parent_key = key_before(path, first);
  shorten(path, first + num_taken);
  take_slots(reservation, num_taken);
  reservation.keys.clear();
  pin_path(source, path, first, demotion.match, reservation.keys);
  insert(path, tree_.root(path.steps[0].run), reservation, tree_.run(path.steps[0].run).priority);
  return demotion;
}

}  // namespace tiercel
