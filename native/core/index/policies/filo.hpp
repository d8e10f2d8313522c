// First in, last out: the leaf stored last leaves first.
#pragma once

#include "index/policies/ranked.hpp"

namespace tiercel {

class FiloPolicy final : public RankedPolicy {
 public:
  using RankedPolicy::RankedPolicy;

 private:
  void begin(Standing& standing, RunId, Use use) override { standing.turn = first_turn(use); }
  void renew(Standing&, RunId, Use) override {}
};

}  // namespace tiercel
