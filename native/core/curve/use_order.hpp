// The order in which the blocks of a tree were used last: the stack of Mattson et al. (1970) for paths.
//
// A request is looked up first and its blocks are used then, from the leaf to the root, so a parent always stands
// before its children: an LRU cache that evicts what was used longest ago keeps whole prefixes without being made to,
// and how far a block stands from the top is the capacity from which on such a cache hits it.
//
// A block stands at the position of its last use. A path used as a whole lies in consecutive positions, so that it is
// found and used again stretch by stretch, not block by block. Positions only grow and are given anew when they run
// out, which costs O(blocks) once in as many uses. Memory: 5 bytes a block. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "curve/block_tree.hpp"
#include "curve/ranked_bits.hpp"

namespace tiercel {

class UseOrder {
 public:
  // Blocks of a path that stand directly behind each other in the order.
  struct Stretch {
    std::size_t depth;         // of its first block, the one nearest to the root
    std::size_t count;         // blocks
    std::size_t rank;          // of its first block; 1 for the block used last
    std::size_t marked_above;  // marked blocks before it in the order
    std::uint32_t position;    // of its first block; the others stand at those before
  };

  // Both outlive this. marked: empty, or a flag a block; they are counted apart.
  UseOrder(std::span<const BlockId> parents, std::span<const std::uint8_t> marked);

  // The stretches of a path, the root's first. Blocks behind them were never used. Valid until the next call.
  std::span<const Stretch> look_up(BlockId leaf);
  // The blocks of the path looked up last, the deepest one first.
  std::span<const BlockId> path() const noexcept { return path_; }
  // Use the path looked up last.
  void use_path();

 private:
  static constexpr std::uint32_t kNever = ~std::uint32_t{0};

  void renumber();
  void move_marks(std::uint32_t top);
  bool is_marked(BlockId block) const noexcept { return marked_[static_cast<std::size_t>(block)] != 0; }

  std::span<const BlockId> parents_;
  std::span<const std::uint8_t> marked_;
  std::size_t num_positions_;
  std::vector<std::uint32_t> positions_;  // of each block, or kNever
  RankedBits used_;                       // positions at which a block stands
  RankedBits used_marked_;
  std::size_t top_ = 0;  // positions before it were given out
  std::vector<BlockId> path_;
  std::vector<Stretch> stretches_;
};

}  // namespace tiercel
