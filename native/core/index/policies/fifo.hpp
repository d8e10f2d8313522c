// First in, first out: the leaf stored longest ago leaves first, however it was used. Since what a path goes on with is
// younger than the path, this comes close to lru on conversations.
#pragma once

#include "index/policies/ranked.hpp"

namespace tiercel {

class FifoPolicy final : public RankedPolicy {
 public:
  using RankedPolicy::RankedPolicy;

 private:
  void begin(Standing& standing, RunId, Use) override { standing.turn = last_turn(); }
  void renew(Standing&, RunId, Use) override {}
};

}  // namespace tiercel
