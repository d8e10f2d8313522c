// Most recently used: the leaf used last leaves first. For scans over more than the tier holds, which lru never hits.
#pragma once

#include "index/policies/ranked.hpp"

namespace tiercel {

class MruPolicy final : public RankedPolicy {
 public:
  using RankedPolicy::RankedPolicy;

 private:
  void begin(Standing& standing, RunId, Use use) override { standing.turn = first_turn(use); }
  void renew(Standing& standing, RunId, Use use) override { standing.turn = first_turn(use); }
};

}  // namespace tiercel
