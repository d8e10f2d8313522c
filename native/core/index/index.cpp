#include "index/index.hpp"

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <utility>

namespace tiercel {

namespace {

// When keys are not hashed yet, compare after this many, so that a lookup hashes at most so much behind a miss.
constexpr std::uint32_t kBlocksHashedAtOnce = 64;

const Key& key_at(Sequence& sequence, std::uint32_t block) { return sequence.stable_keys(block, block + 1)[0]; }

void check_tenants(const IndexOptions& options) {
  if (options.tenants.size() > kNumTenantsMax) {
    throw std::invalid_argument("tenants: at most " + std::to_string(kNumTenantsMax));
  }
  const std::size_t num_tiers = options.capacities.size();
  std::vector<std::uint64_t> num_reserved(num_tiers, 0);
  for (const TenantOptions& tenant : options.tenants) {
    if (tenant.reserves.size() != num_tiers || tenant.limits.size() != num_tiers) {
      throw std::invalid_argument("tenants: one reserve and one limit per tier for each");
    }
    for (std::size_t tier = 0; tier < num_tiers; ++tier) {
      num_reserved[tier] += tenant.reserves[tier];
      if (tenant.reserves[tier] > tenant.limits[tier]) {
        throw std::invalid_argument("tenants: a reserve is no more than the limit beside it");
      }
    }
  }
  for (std::size_t tier = 0; tier < num_tiers; ++tier) {
    if (num_reserved[tier] <= options.capacities[tier]) continue;
    throw std::invalid_argument("tenants: tier " + std::to_string(tier) + " has fewer slots than are reserved in it");
  }
}

void check_options(const IndexOptions& options) {
  const std::size_t num_tiers = options.capacities.size();
  if (num_tiers == 0 || num_tiers > Index::kNumTiersMax) {
    throw std::invalid_argument("capacities: 1 to " + std::to_string(Index::kNumTiersMax) + " tiers, got " +
                                std::to_string(num_tiers));
  }
  for (const std::uint32_t capacity : options.capacities) {
    if (capacity > kNumSlotsMax) throw std::invalid_argument("capacities: at most 2^31 - 1 slots a tier");
  }
  if (!options.policies.empty() && options.policies.size() != num_tiers) {
    throw std::invalid_argument("policies: one name per tier, or none");
  }
  for (const PolicyOptions& policy : options.policies) {
    if (policy.tokens_per_block == 0) throw std::invalid_argument("tokens_per_block: at least 1");
  }
  if (!options.evict_batch.empty() && options.evict_batch.size() != num_tiers) {
    throw std::invalid_argument("evict_batch: one number per tier, or none");
  }
  check_tenants(options);
}

std::size_t count_slots(const IndexOptions& options) {
  check_options(options);
  return std::accumulate(options.capacities.begin(), options.capacities.end(), std::size_t{0});
}

std::vector<PolicyOptions> policies_of(const IndexOptions& options) {
  if (options.policies.empty()) return std::vector<PolicyOptions>(options.capacities.size());
  return options.policies;
}

}  // namespace

Match::~Match() {
  if (index_ == nullptr || slots_.empty()) return;
  Index::Lock lock(index_->mutex());
  index_->truncate(lock, *this, 0);
}

Index::Index(const IndexOptions& options)
    : tree_(options.capacities, policies_of(options), options.tenants, count_slots(options) + 1) {
  tiers_.reserve(options.capacities.size());
  for (std::size_t tier = 0; tier < options.capacities.size(); ++tier) {
    const std::uint32_t batch = options.evict_batch.empty() ? 1 : std::max(options.evict_batch[tier], 1u);
    tiers_.push_back({SlotTable(options.capacities[tier]), batch});
  }
}

std::shared_ptr<Index> Index::create(const IndexOptions& options) {
  check_options(options);
  return std::shared_ptr<Index>(new Index(options));
}

// Hash the keys before `stop`, without the lock if there is anything to hash. False if the tree changed meanwhile.
bool Index::hash_to(Lock& lock, Sequence& sequence, std::uint32_t stop) const {
  if (sequence.num_hashed_blocks() >= stop) return true;
  const std::uint64_t version = tree_.version();
  lock.unlock();
  sequence.hash_to(stop);
  lock.lock();
  return version == tree_.version();
}

// How many leading blocks of `run`, which begins at block `depth`, lie on the sequence's path; the first one does. None
// if the tree changed while hashing. Equal keys mean equal prefixes, so one comparison at the end usually settles it.
std::optional<std::uint32_t> Index::match_run(Lock& lock, Sequence& sequence, RunId run, std::uint32_t depth,
                                              std::uint32_t limit) const {
  const Run& stored = tree_.run(run);
  const std::uint32_t end = std::min(stored.num_blocks, limit - depth);
  std::uint32_t matched = 1;
  while (matched < end) {
    const auto num_hashed = static_cast<std::uint32_t>(
        std::min<std::size_t>(std::max<std::size_t>(sequence.num_hashed_blocks(), depth) - depth, end));
    const std::uint32_t stop = std::max(num_hashed, std::min(end, matched + kBlocksHashedAtOnce));
    if (!hash_to(lock, sequence, depth + stop)) return std::nullopt;
    if (key_at(sequence, depth + stop - 1) == stored.keys[stop - 1]) {
      matched = stop;
      continue;
    }
    std::uint32_t differs = stop - 1;
    while (matched < differs) {
      const std::uint32_t middle = matched + (differs - matched) / 2;
      if (key_at(sequence, depth + middle) == stored.keys[middle]) {
        matched = middle + 1;
      } else {
        differs = middle;
      }
    }
    break;
  }
  return matched;
}

// Follow the sequence down the tree. False if the tree changed while hashing; what is hashed by then stays hashed.
bool Index::try_walk(Lock& lock, Sequence& sequence, std::uint32_t limit, Path& path) const {
  RunId parent = kNoRun;
  while (path.num_blocks < limit) {
    const std::uint32_t depth = path.num_blocks;
    if (!hash_to(lock, sequence, depth + 1)) return false;
    const RunId run = tree_.find_child(parent, key_at(sequence, depth));
    if (run == kNoRun) break;
    const std::optional<std::uint32_t> matched = match_run(lock, sequence, run, depth, limit);
    if (!matched) return false;
    path.steps.push_back({run, *matched});
    path.num_blocks += *matched;
    if (*matched < tree_.run(run).num_blocks) break;
    parent = run;
  }
  return true;
}

Index::Path Index::walk(Lock& lock, Sequence& sequence, std::uint32_t limit) const {
  Path path;
  path.steps.reserve(16);
  while (!try_walk(lock, sequence, limit, path)) path = {};
  return path;
}

bool Index::is_ready(std::size_t tier, RunId run, std::uint32_t at) const noexcept {
  const TierRun& held = tree_.tier_run(tier, run);
  return at < held.num_present && (held.num_writing == 0 || !is_writing(held.slots[at]));
}

// Blocks of the step from `at` on, all in `tier`, to be read from there: ready, and in no faster tier.
std::uint32_t Index::count_ready(std::size_t tier, const Step& step, std::uint32_t at) const noexcept {
  const TierRun& held = tree_.tier_run(tier, step.run);
  std::uint32_t end = std::min(held.num_present, step.num_blocks);
  for (std::size_t faster = 0; faster < tier; ++faster) {
    // Another block behind this one may be ready there.
    if (tree_.tier_run(faster, step.run).num_present > at) end = std::min(end, at + 1);
  }
  if (held.num_writing == 0) return end - at;
  std::uint32_t stop = at;
  while (stop < end && !is_writing(held.slots[stop])) ++stop;
  return stop - at;
}

// Pin the step's leading blocks that are ready somewhere, each in its fastest tier. Returns how many.
std::uint32_t Index::pin_step(const Step& step, Match& match) {
  std::uint32_t at = 0;
  while (at < step.num_blocks) {
    std::size_t tier = 0;
    while (tier < tiers_.size() && !is_ready(tier, step.run, at)) ++tier;
    if (tier == tiers_.size()) break;
    const std::uint32_t num_blocks = count_ready(tier, step, at);
    SlotTable& table = tiers_[tier].slots;
    const Slot* slots = tree_.tier_run(tier, step.run).slots + at;
    for (std::uint32_t block = 0; block < num_blocks; ++block) table.pin(slots[block]);
    const auto first = static_cast<std::uint32_t>(match.slots_.size());
    match.slots_.insert(match.slots_.end(), slots, slots + num_blocks);
    if (!match.segments_.empty() && match.segments_.back().tier == tier) {
      match.segments_.back().num_blocks += num_blocks;
    } else {
      match.segments_.push_back({static_cast<std::uint32_t>(tier), first, num_blocks});
    }
    at += num_blocks;
  }
  return at;
}

// Blocks of the step from `at` on that are present but nowhere ready.
std::uint32_t Index::count_pending(const Step& step, std::uint32_t at) const noexcept {
  std::uint32_t stop = at;
  const auto is_ready_somewhere = [&] {
    for (std::size_t tier = 0; tier < tiers_.size(); ++tier) {
      if (is_ready(tier, step.run, stop)) return true;
    }
    return false;
  };
  while (stop < step.num_blocks && !is_ready_somewhere()) ++stop;
  return stop - at;
}

Match Index::match(Lock& lock, Sequence& sequence, std::size_t limit_blocks, bool touch, double now_s) {
  Path path = walk(lock, sequence, static_cast<std::uint32_t>(std::min(limit_blocks, sequence.num_blocks())));
  Match match(shared_from_this(), generation_);
  match.slots_.reserve(path.num_blocks);
  for (const Step& step : path.steps) {
    // Behind the first pending block nothing is ready for this match.
    const std::uint32_t num_ready = match.num_pending_ == 0 ? pin_step(step, match) : 0;
    if (num_ready == step.num_blocks) continue;
    const std::uint32_t num_pending = count_pending(step, num_ready);
    match.num_pending_ += num_pending;
    if (num_ready + num_pending < step.num_blocks) break;
  }
  if (touch) {
    end_use(path);
    for (std::size_t tier = 0; tier < tiers_.size(); ++tier) {
      tree_.advance(tier, now_s);
      use_path(path, tier, Use::kLookup);
    }
  }
  return match;
}

void Index::truncate(Lock&, Match& match, std::size_t num_blocks) {
  while (!match.segments_.empty()) {
    Segment& last = match.segments_.back();
    const std::size_t first = std::max<std::size_t>(last.first_block, num_blocks);
    SlotTable& table = tiers_[last.tier].slots;
    for (std::size_t block = match.slots_.size(); block-- > first;) table.unpin(match.slots_[block]);
    if (first < match.slots_.size()) match.slots_.resize(first);
    last.num_blocks = static_cast<std::uint32_t>(match.slots_.size()) - last.first_block;
    if (last.num_blocks != 0) break;
    match.segments_.pop_back();
  }
}

// Cut the last run in two if the path ends inside it: only its head is used, and a run has one history.
void Index::end_use(Path& path) {
  if (path.steps.empty()) return;
  Step& last = path.steps.back();
  if (last.num_blocks < tree_.run(last.run).num_blocks) last.run = split(last.run, last.num_blocks);
}

// Tell the tier's policy that the part of the path that the tier holds was used. `end_use` comes first.
void Index::use_path(const Path& path, std::size_t tier, Use use) {
  RunId last = kNoRun;
  for (const Step& step : path.steps) {
    if (tree_.tier_run(tier, step.run).num_present == 0) break;
    last = step.run;
  }
  tree_.use(tier, last, use);
}

IndexStats Index::stats(Lock&, std::size_t tier) const {
  const SlotTable& slots = tiers_[tier].slots;
  std::size_t num_bytes = tree_.num_bytes() + reservations_.capacity() * sizeof(OpenReservation);
  for (const Tier& each : tiers_) num_bytes += each.slots.num_bytes();
  const EvictionAges& ages = tree_.eviction_ages(tier);
  return {.num_slots = slots.num_slots(),
          .num_free = slots.num_free(),
          .num_ready = slots.num_ready(),
          .num_writing = slots.num_writing(),
          .num_pinned = slots.num_pinned(),
          .num_runs = tree_.num_runs(),
          .num_evicted = tiers_[tier].num_evicted,
          .evicted_age_sum_s = ages.sum_s(),
          .evicted_age_counts = ages.counts(),
          .memory_bytes = num_bytes,
          .policy = tree_.policy_stats(tier)};
}

void Index::assign(Lock&, const Key& root, std::size_t tenant) {
  if (tenant >= tree_.num_tenants()) {
    throw std::invalid_argument("tenant: the index has " + std::to_string(tree_.num_tenants()) +
                                " tenants, 0 included, not number " + std::to_string(tenant));
  }
  tree_.assign(root, static_cast<Tenant>(tenant));
}

std::vector<TenantShare> Index::shares(Lock&, std::size_t tier) const {
  std::vector<TenantShare> shares;
  for (std::size_t tenant = 0; tenant < tree_.num_tenants(); ++tenant) {
    shares.push_back(tree_.share(tier, static_cast<Tenant>(tenant)));
  }
  return shares;
}

}  // namespace tiercel
