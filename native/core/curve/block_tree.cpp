#include "curve/block_tree.hpp"

#include <stdexcept>
#include <string>

namespace tiercel {

void check_parents(std::span<const BlockId> parents) {
  for (std::size_t block = 0; block < parents.size(); ++block) {
    const BlockId parent = parents[block];
    if (parent < kNoBlockId || (parent >= 0 && static_cast<std::size_t>(parent) >= block)) {
      throw std::invalid_argument("parents[" + std::to_string(block) + "] = " + std::to_string(parent) +
                                  ": a parent comes before its children, and is -1 for none");
    }
  }
}

void check_leaves(std::span<const BlockId> leaves, std::size_t num_blocks) {
  for (std::size_t request = 0; request < leaves.size(); ++request) {
    const BlockId leaf = leaves[request];
    if (leaf < kNoBlockId || (leaf >= 0 && static_cast<std::size_t>(leaf) >= num_blocks)) {
      throw std::invalid_argument("leaves[" + std::to_string(request) + "] = " + std::to_string(leaf) + ": there are " +
                                  std::to_string(num_blocks) + " blocks");
    }
  }
}

std::vector<std::int32_t> count_uses(std::span<const BlockId> parents, std::span<const BlockId> leaves) {
  check_parents(parents);
  check_leaves(leaves, parents.size());
  std::vector<std::int32_t> uses(parents.size());
  for (const BlockId leaf : leaves) {
    if (leaf != kNoBlockId) ++uses[static_cast<std::size_t>(leaf)];
  }
  for (std::size_t block = parents.size(); block-- > 0;) {
    if (parents[block] != kNoBlockId) uses[static_cast<std::size_t>(parents[block])] += uses[block];
  }
  return uses;
}

std::vector<BlockId> nearest_kept(std::span<const BlockId> parents, std::span<const std::uint8_t> kept) {
  check_parents(parents);
  if (kept.size() != parents.size()) throw std::invalid_argument("kept: one flag a block");
  std::vector<BlockId> nearest(parents.size());
  BlockId num_kept = 0;
  for (std::size_t block = 0; block < parents.size(); ++block) {
    if (kept[block] != 0) {
      nearest[block] = num_kept++;
    } else {
      nearest[block] = parents[block] == kNoBlockId ? kNoBlockId : nearest[static_cast<std::size_t>(parents[block])];
    }
  }
  return nearest;
}

}  // namespace tiercel
