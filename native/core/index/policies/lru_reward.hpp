// Least recently used, where each hit earns time: grace = max(grace, now) + reward, and the leaf whose grace ended, or
// will end, first leaves first. So a run in grace is passed over while others exist; among equals, least recently used
// first. This is FlexKV's hit_reward_seconds.
#pragma once

#include "index/policies/ranked.hpp"

namespace tiercel {

class RewardedLruPolicy final : public RankedPolicy {
 public:
  RewardedLruPolicy(const PolicyOptions& options, const TierView& tier)
      : RankedPolicy(tier), reward_s_(options.hit_reward_s) {}

 private:
  void begin(Standing& standing, RunId, Use) override {
    standing.value = now_s();
    standing.turn = last_turn();
  }
  void renew(Standing& standing, RunId, Use use) override {
    standing.value = std::max(standing.value, now_s()) + (use == Use::kLookup ? reward_s_ : 0.0);
    standing.turn = last_turn();
  }

  double reward_s_;
};

}  // namespace tiercel
