// The hit rate of an LRU cache of any capacity from some of a trace's blocks: SHARDS (Waldspurger et al., FAST'15) over
// prefix trees.
//
// The tree is that of the blocks followed alone, each below its nearest ancestor followed. Of the blocks that are used
// most all are followed (hot); of the others those whose name hashes below a rate. A hot block counts once in a
// distance, a sampled one for the inverse of the rate. Samples fall into parts by their names, so that how much the
// parts differ tells how much the whole may be off. Memory: some 10 bytes a block followed, and 400 KiB.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "curve/block_tree.hpp"
#include "curve/pulse.hpp"
#include "curve/use_order.hpp"
#include "ghost/distance_histogram.hpp"

namespace tiercel {

// What a use counts for: a block, its tokens, and its share of the request's blocks.
inline constexpr std::size_t kNumWeights = 3;
using Weights = std::array<double, kNumWeights>;

// Of the trace's requests, in order.
struct SampledRequests {
  std::span<const BlockId> leaves;      // the deepest block followed
  std::span<const double> shares;       // one over the request's blocks, those not followed included
  std::span<const double> leaf_tokens;  // tokens of the request in that deepest block
};

// What was counted, by group: the parts of the sample, and behind them what is hot.
class SampledHits {
 public:
  static constexpr std::size_t kNumParts = 16;
  static constexpr std::uint8_t kHot = kNumParts;
  static constexpr std::size_t kNumGroups = kNumParts + 1;

  SampledHits() : groups_(kNumGroups) {}

  // Weights of all uses of a group, and of those that a cache of `capacity` blocks hits.
  const Weights& uses(std::size_t group) const noexcept { return groups_[group].uses; }
  Weights hits(std::size_t group, std::uint64_t capacity) const noexcept;

  void add_use(std::size_t group, const Weights& weights) noexcept;
  void add_distance(std::size_t group, std::uint64_t distance, const Weights& weights) noexcept;

 private:
  struct Group {
    Weights uses{};
    std::array<DistanceHistogram, kNumWeights> hits;
  };

  std::vector<Group> groups_;
};

class SampledPass {
 public:
  // groups: of each block followed its part, or SampledHits::kHot. Both arrays outlive this. std::invalid_argument
  // names what is out of range.
  SampledPass(std::span<const BlockId> parents, std::span<const std::uint8_t> groups, double rate,
              double tokens_per_block);

  void run(const SampledRequests& requests, const Pulse& pulse);
  const SampledHits& hits() const noexcept { return hits_; }

 private:
  void run_request(BlockId leaf, double share, double leaf_tokens);

  std::span<const BlockId> parents_;
  std::span<const std::uint8_t> groups_;
  double rate_;
  double tokens_per_block_;
  std::vector<std::uint8_t> is_hot_;
  UseOrder order_;
  SampledHits hits_;
};

}  // namespace tiercel
