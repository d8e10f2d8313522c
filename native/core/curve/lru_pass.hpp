// The hit rate of an LRU cache of every capacity, exactly and in one pass over a trace.
//
// Distances of a request's blocks hold when it arrives, before any of them is used (`UseOrder`). Along a path they only
// grow, so a cache of C blocks hits exactly the leading blocks with a distance of C at most. Of consecutive blocks that
// stand behind each other each is one further away than the one before it: a whole stretch is counted at once.
// Time: O(references) for walking the paths, O(log blocks) a stretch. Memory: some 25 bytes a block.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "curve/block_tree.hpp"
#include "curve/pulse.hpp"
#include "curve/use_order.hpp"

namespace tiercel {

// What a cache of each capacity hits, from 0 up to the smallest capacity that hits all that any can.
struct LruHits {
  std::vector<std::int64_t> blocks;        // [capacity]
  std::vector<double> request_shares;      // [capacity]: of each request the share of its blocks, summed
  std::vector<std::int64_t> tail_ranks;    // of each last block that was hit and is not full: its distance,
  std::vector<std::int64_t> tail_missing;  // and by how many tokens it is short of a full one
};

class LruPass {
 public:
  // The array outlives this. std::invalid_argument for a parent that comes after its child.
  LruPass(std::span<const BlockId> parents, std::int64_t tokens_per_block);

  // Requests in order of arrival. std::invalid_argument for a leaf out of range, and for a request that has fewer
  // tokens than its blocks but the last one need; nothing was counted then.
  void run(std::span<const BlockId> leaves, std::span<const std::int64_t> input_tokens, const Pulse& pulse);
  std::int64_t num_references() const noexcept { return num_references_; }
  LruHits hits() const;

 private:
  void run_request(BlockId leaf, std::int64_t input_tokens);

  std::span<const BlockId> parents_;
  std::int64_t tokens_per_block_;
  UseOrder order_;
  // By distance, how much more is hit from there on than one block nearer.
  std::vector<std::int64_t> block_steps_;
  std::vector<double> share_steps_;
  std::vector<std::int64_t> tail_ranks_;
  std::vector<std::int64_t> tail_missing_;
  std::int64_t num_references_ = 0;
  std::size_t rank_max_ = 0;
};

}  // namespace tiercel
