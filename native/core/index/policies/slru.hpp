// Segmented lru: what lookups have used protected_hits times is protected and leaves only when nothing else is left, or
// when that is more than 35 % of the tier; within both parts, least recently used first. Karedla, Love and
// Wherry, Caching Strategies to Improve Disk System Performance (1994), but that what is too much of the protected part
// leaves the tier instead of going on probation.
#pragma once

#include "index/policies/two_part.hpp"

namespace tiercel {

class SlruPolicy final : public TwoPartPolicy {
 public:
  SlruPolicy(const PolicyOptions& options, const TierView& tier)
      : TwoPartPolicy(tier), protected_hits_(options.slru_protected_hits) {}

  void used(RunId run, Use use) override {
    num_hits(run) += use == Use::kLookup;
    place(run, num_hits(run) >= protected_hits_ && num_hits(run) != 0 ? kBetter : part(run));
  }

 private:
  Offer next_offer() const override {
    const std::uint64_t num_protected_max = std::uint64_t{num_slots()} * 35 / 100;
    if (num_blocks(kBetter) <= num_protected_max) return {kPlain};
    return {kBetter, num_blocks(kBetter) - num_protected_max};
  }

  std::uint32_t protected_hits_;
};

}  // namespace tiercel
