// Segmented lru: what lookups have used protected_hits times is protected, in at most four fifths of the tier; beyond
// that the protected leaf used longest ago is on probation again. Evicted is from what is not protected, least recently
// used first. Karedla, Love and Wherry, Caching Strategies to Improve Disk System Performance (1994).
#pragma once

#include "index/policies/two_part.hpp"

namespace tiercel {

class SlruPolicy final : public TwoPartPolicy {
 public:
  SlruPolicy(const PolicyOptions& options, const TierView& tier)
      : TwoPartPolicy(tier),
        protected_hits_(options.slru_protected_hits),
        num_protected_max_(std::uint64_t{tier.num_slots} * 4 / 5) {}

  void used(RunId run, Use use) override {
    num_hits(run) += use == Use::kLookup;
    place(run, num_hits(run) >= protected_hits_ && num_hits(run) != 0 ? kBetter : part(run));
    while (num_blocks(kBetter) > num_protected_max_ && oldest_leaf(kBetter) != kNoRun) {
      const RunId oldest = oldest_leaf(kBetter);
      num_hits(oldest) = 0;
      place(oldest, kPlain);
    }
  }

 private:
  Part next_part() const override { return kPlain; }

  std::uint32_t protected_hits_;
  std::uint64_t num_protected_max_;
};

}  // namespace tiercel
