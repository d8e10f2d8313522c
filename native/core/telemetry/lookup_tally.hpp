// Counts of lookups, in plain integers behind a lock that is held for some nanoseconds. Thread-safe.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tiercel {

// Observations per bucket; an observation on a bound belongs to the bucket below it.
class TallyHistogram {
 public:
  explicit TallyHistogram(std::vector<double> bounds) : bounds_(std::move(bounds)), counts_(bounds_.size() + 1) {}

  void observe(double value) noexcept {
    const auto bucket = std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin();
    ++counts_[static_cast<std::size_t>(bucket)];
    total_ += value;
  }
  const std::vector<std::uint64_t>& counts() const noexcept { return counts_; }
  double total() const noexcept { return total_; }

 private:
  std::vector<double> bounds_;  // ascending
  std::vector<std::uint64_t> counts_;
  double total_ = 0.0;
};

struct LookupBounds {
  std::vector<double> seconds;
  std::vector<double> hit_ratio;
  std::vector<double> hit_blocks;
};

struct LookupSeen {
  double seconds;
  std::uint64_t num_tokens;
  std::uint64_t tokens_per_block;
  std::uint64_t num_pending;   // blocks behind the hit that are being written
  std::uint64_t num_declined;  // blocks behind the hit that are stored but cheaper to recompute
};

struct TierHits {
  std::string_view tier;
  std::uint64_t num_blocks;
};

struct LookupCounts {
  explicit LookupCounts(const LookupBounds& bounds) : seconds(bounds.seconds), hit_ratio(bounds.hit_ratio) {}

  std::uint64_t num_missed = 0;
  std::uint64_t num_partial = 0;
  std::uint64_t num_full = 0;
  std::uint64_t num_tokens = 0;
  std::uint64_t num_blocks = 0;
  std::uint64_t num_pending = 0;
  std::uint64_t num_declined = 0;
  std::uint64_t tokens_per_block = 0;  // of the last lookup
  TallyHistogram seconds;
  TallyHistogram hit_ratio;                                  // of lookups of at least one block
  std::vector<std::pair<std::string, TallyHistogram>> hits;  // blocks by tier, of lookups that it would serve
};

class LookupTally {
 public:
  explicit LookupTally(LookupBounds bounds) : bounds_(std::move(bounds)), counts_(bounds_) {}

  // for_each_hit(function): calls function(TierHits), for a tier at most once.
  template <typename ForEachHit>
  void observe(const LookupSeen& seen, const ForEachHit& for_each_hit) {
    const std::lock_guard lock(mutex_);
    const std::uint64_t num_blocks = seen.tokens_per_block == 0 ? 0 : seen.num_tokens / seen.tokens_per_block;
    std::uint64_t num_stored = seen.num_declined;
    for_each_hit([&](const TierHits& hits) {
      num_stored += hits.num_blocks;
      of_tier(hits.tier).observe(static_cast<double>(hits.num_blocks));
    });
    ++(num_stored == 0 ? counts_.num_missed : num_stored < num_blocks ? counts_.num_partial : counts_.num_full);
    counts_.num_tokens += seen.num_tokens;
    counts_.num_blocks += num_blocks;
    counts_.num_pending += seen.num_pending;
    counts_.num_declined += seen.num_declined;
    counts_.tokens_per_block = seen.tokens_per_block;
    counts_.seconds.observe(seen.seconds);
    if (num_blocks != 0) counts_.hit_ratio.observe(static_cast<double>(num_stored) / static_cast<double>(num_blocks));
  }

  LookupCounts read() const {
    const std::lock_guard lock(mutex_);
    return counts_;
  }

 private:
  TallyHistogram& of_tier(std::string_view tier) {
    for (auto& [name, histogram] : counts_.hits) {
      if (name == tier) return histogram;
    }
    return counts_.hits.emplace_back(tier, TallyHistogram(bounds_.hit_blocks)).second;
  }

  const LookupBounds bounds_;
  mutable std::mutex mutex_;
  LookupCounts counts_;
};

}  // namespace tiercel
