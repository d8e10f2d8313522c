// Cost-aware: recompute time saved per byte and second, by GreedyDual-Size with frequency (GDSF). A use sets
//
//   value = age + uses * cost(depth) / bytes,    cost(depth) = 1 + depth / kTokensPerUnit
//
// and age is the value of the last block evicted, which is what makes old value fade: between two evictions of one age
// a second of a slot is worth the same everywhere. All blocks of a tier have as many bytes, so the division drops out.
// The cost of recomputing a block is that of its matrices, taken as 1, and that of its attention over the prefix before
// it, which grows with depth, the tokens before it. A run has the depth of its last block there, the one that leaves
// first.
// Cao and Irani, Cost-Aware WWW Proxy Caching Algorithms (1997); Cherkasova, Improving WWW Proxies Performance with
// Greedy-Dual-Size-Frequency Caching Policy (1998).
#pragma once

#include "index/policies/ranked.hpp"

namespace tiercel {

class CostPolicy final : public RankedPolicy {
 public:
  CostPolicy(const PolicyOptions& options, const TierView& tier)
      : RankedPolicy(tier), units_per_block_(options.tokens_per_block / kTokensPerUnit) {}

 private:
  // Depth at which attention costs as much as the matrices: 2 * parameters / (4 * layers * hidden size) tokens, about
  // 30,000 for a model of 8 G parameters and less for smaller ones.
  static constexpr double kTokensPerUnit = 16384.0;

  void begin(Standing& standing, RunId, Use) override {
    standing.value = age_;
    standing.turn = last_turn();
  }
  void renew(Standing& standing, RunId, Use use) override {
    if (use == Use::kLookup) standing.value = age_;
    standing.turn = last_turn();
  }
  double value_of(const Standing& standing, RunId run) const override {
    return value_at(standing, tier_.runs[run].depth + tier_.held[run].num_present);
  }
  void evicting(const Standing& standing, RunId run, std::uint32_t stop) override {
    age_ = std::max(age_, value_at(standing, tier_.runs[run].depth + stop));
  }
  // Of the last of the path's first `num_blocks` blocks.
  double value_at(const Standing& standing, std::uint32_t num_blocks) const {
    return standing.value + (1.0 + standing.num_hits) * (1.0 + (num_blocks - 1.0) * units_per_block_);
  }

  double units_per_block_;
  double age_ = 0.0;
};

}  // namespace tiercel
