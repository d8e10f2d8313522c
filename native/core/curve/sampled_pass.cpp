#include "curve/sampled_pass.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace tiercel {

namespace {

std::vector<std::uint8_t> find_hot(std::span<const BlockId> parents, std::span<const std::uint8_t> groups) {
  check_parents(parents);
  if (groups.size() != parents.size()) throw std::invalid_argument("groups: one number a block");
  std::vector<std::uint8_t> is_hot(groups.size());
  for (std::size_t block = 0; block < groups.size(); ++block) {
    if (groups[block] > SampledHits::kHot) throw std::invalid_argument("groups: out of range");
    is_hot[block] = groups[block] == SampledHits::kHot;
  }
  return is_hot;
}

}  // namespace

void SampledHits::add_use(std::size_t group, const Weights& weights) noexcept {
  for (std::size_t weight = 0; weight < kNumWeights; ++weight) groups_[group].uses[weight] += weights[weight];
}

void SampledHits::add_distance(std::size_t group, std::uint64_t distance, const Weights& weights) noexcept {
  for (std::size_t weight = 0; weight < kNumWeights; ++weight) {
    groups_[group].hits[weight].add(distance, weights[weight]);
  }
}

Weights SampledHits::hits(std::size_t group, std::uint64_t capacity) const noexcept {
  Weights hits{};
  if (capacity == 0) return hits;
  for (std::size_t weight = 0; weight < kNumWeights; ++weight) {
    hits[weight] = groups_[group].hits[weight].sum_to(capacity);
  }
  return hits;
}

SampledPass::SampledPass(std::span<const BlockId> parents, std::span<const std::uint8_t> groups, double rate,
                         double tokens_per_block)
    : parents_(parents),
      groups_(groups),
      rate_(rate),
      tokens_per_block_(tokens_per_block),
      is_hot_(find_hot(parents, groups)),
      order_(parents, is_hot_) {
  if (!(rate > 0 && rate <= 1)) throw std::invalid_argument("rate: more than 0 and at most 1");
}

void SampledPass::run(const SampledRequests& requests, const Pulse& pulse) {
  const std::size_t num_requests = requests.leaves.size();
  if (requests.shares.size() != num_requests || requests.leaf_tokens.size() != num_requests) {
    throw std::invalid_argument("shares and leaf_tokens: one number a request");
  }
  check_leaves(requests.leaves, parents_.size());
  Pulses pulses(pulse);
  for (std::size_t request = 0; request < num_requests; ++request) {
    if (requests.leaves[request] == kNoBlockId) continue;
    run_request(requests.leaves[request], requests.shares[request], requests.leaf_tokens[request]);
    pulses.advance(order_.path().size());
  }
}

void SampledPass::run_request(BlockId leaf, double share, double leaf_tokens) {
  const std::span<const UseOrder::Stretch> stretches = order_.look_up(leaf);
  const std::span<const BlockId> path = order_.path();
  const std::size_t length = path.size();
  const auto weights_at = [&](std::size_t depth) {
    return Weights{1.0, depth + 1 == length ? leaf_tokens : tokens_per_block_, share};
  };
  for (std::size_t depth = 0; depth < length; ++depth) {
    hits_.add_use(groups_[static_cast<std::size_t>(path[length - 1 - depth])], weights_at(depth));
  }
  for (const UseOrder::Stretch& stretch : stretches) {
    std::size_t num_hot = stretch.marked_above;
    std::size_t num_samples = stretch.rank - 1 - num_hot;
    for (std::size_t at = 0; at < stretch.count; ++at) {
      const std::size_t depth = stretch.depth + at;
      const std::size_t block = static_cast<std::size_t>(path[length - 1 - depth]);
      const auto others = static_cast<std::uint64_t>(std::llround(static_cast<double>(num_samples) / rate_));
      hits_.add_distance(groups_[block], 1 + num_hot + others, weights_at(depth));
      ++(is_hot_[block] != 0 ? num_hot : num_samples);
    }
  }
  order_.use_path();
}

}  // namespace tiercel
