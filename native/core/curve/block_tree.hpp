// A trace's blocks as a tree: the number of each block's parent, which comes before its children, and of each request
// the number of its deepest block. Block kNoBlockId is the parent of a first block and the leaf of an empty request.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "curve/pulse.hpp"

namespace tiercel {

using BlockId = std::int32_t;
inline constexpr BlockId kNoBlockId = -1;

// std::invalid_argument names what is out of range.
void check_parents(std::span<const BlockId> parents);
void check_leaves(std::span<const BlockId> leaves, std::size_t num_blocks);

// How many requests use each block.
std::vector<std::int32_t> count_uses(std::span<const BlockId> parents, std::span<const BlockId> leaves);

// Number the blocks kept from 0 on, in order, and tell of each block the number of its nearest ancestor kept, itself
// included, or kNoBlockId: a tree of the kept blocks, in which each hangs below its nearest ancestor.
std::vector<BlockId> nearest_kept(std::span<const BlockId> parents, std::span<const std::uint8_t> kept);

// The path's blocks, the deepest one first.
inline void collect_path(std::span<const BlockId> parents, BlockId leaf, std::vector<BlockId>& path) {
  path.clear();
  for (BlockId block = leaf; block != kNoBlockId; block = parents[static_cast<std::size_t>(block)])
    path.push_back(block);
}

}  // namespace tiercel
