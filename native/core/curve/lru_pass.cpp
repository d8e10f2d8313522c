#include "curve/lru_pass.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace tiercel {

namespace {

std::span<const BlockId> checked(std::span<const BlockId> parents) {
  check_parents(parents);
  return parents;
}

}  // namespace

LruPass::LruPass(std::span<const BlockId> parents, std::int64_t tokens_per_block)
    : parents_(checked(parents)),
      tokens_per_block_(tokens_per_block),
      order_(parents, {}),
      block_steps_(parents.size() + 2),
      share_steps_(parents.size() + 2) {
  if (tokens_per_block < 1) throw std::invalid_argument("tokens_per_block: at least 1");
}

void LruPass::run(std::span<const BlockId> leaves, std::span<const std::int64_t> input_tokens, const Pulse& pulse) {
  if (leaves.size() != input_tokens.size()) throw std::invalid_argument("input_tokens: one number a request");
  check_leaves(leaves, parents_.size());
  Pulses pulses(pulse);
  for (std::size_t request = 0; request < leaves.size(); ++request) {
    run_request(leaves[request], input_tokens[request]);
    pulses.advance(order_.path().size() + 1);
  }
}

void LruPass::run_request(BlockId leaf, std::int64_t input_tokens) {
  const std::span<const UseOrder::Stretch> stretches = order_.look_up(leaf);
  const std::size_t length = order_.path().size();
  if (length == 0) return;
  const std::int64_t missing =
      std::max<std::int64_t>(0, static_cast<std::int64_t>(length) * tokens_per_block_ - input_tokens);
  if (missing >= tokens_per_block_) {
    throw std::invalid_argument("a request of " + std::to_string(input_tokens) + " tokens names " +
                                std::to_string(length) + " blocks of " + std::to_string(tokens_per_block_));
  }
  const double share = 1.0 / static_cast<double>(length);
  for (const UseOrder::Stretch& stretch : stretches) {
    ++block_steps_[stretch.rank];
    --block_steps_[stretch.rank + stretch.count];
    share_steps_[stretch.rank] += share;
    share_steps_[stretch.rank + stretch.count] -= share;
  }
  if (!stretches.empty()) {
    const UseOrder::Stretch& last = stretches.back();
    const std::size_t rank = last.rank + last.count - 1;
    rank_max_ = std::max(rank_max_, rank);
    if (missing > 0 && last.depth + last.count == length) {
      tail_ranks_.push_back(static_cast<std::int64_t>(rank));
      tail_missing_.push_back(missing);
    }
  }
  num_references_ += static_cast<std::int64_t>(length);
  order_.use_path();
}

LruHits LruPass::hits() const {
  LruHits hits{std::vector<std::int64_t>(rank_max_ + 1), std::vector<double>(rank_max_ + 1), tail_ranks_,
               tail_missing_};
  std::int64_t blocks = 0;  // at this very distance
  double share = 0;
  for (std::size_t rank = 1; rank <= rank_max_; ++rank) {
    blocks += block_steps_[rank];
    share += share_steps_[rank];
    hits.blocks[rank] = hits.blocks[rank - 1] + blocks;
    hits.request_shares[rank] = hits.request_shares[rank - 1] + share;
  }
  return hits;
}

}  // namespace tiercel
