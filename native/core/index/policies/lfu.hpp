// Least frequently used with dynamic ageing (LFU-DA): a use sets a run's value to its number of uses plus the age,
// which is the value of the last run evicted; so what was used often long ago gives way. Among equals, least recently
// used first. Arlitt, Cherkasova, Dilley, Friedrich and Jin, Evaluating Content Management Techniques for Web Proxy
// Caches (2000).
#pragma once

#include "index/policies/ranked.hpp"

namespace tiercel {

class LfuPolicy final : public RankedPolicy {
 public:
  using RankedPolicy::RankedPolicy;

 private:
  void begin(Standing& standing, RunId, Use) override {
    standing.value = age_ + 1;
    standing.turn = last_turn();
  }
  void renew(Standing& standing, RunId, Use use) override {
    if (use == Use::kLookup) standing.value = age_ + 1 + standing.num_hits;
    standing.turn = last_turn();
  }
  void evicting(const Standing& standing, RunId, std::uint32_t) override { age_ = std::max(age_, standing.value); }

  double age_ = 0.0;
};

}  // namespace tiercel
