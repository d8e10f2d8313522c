// Turns the blocks recovered from a tier, of which nothing is certain, back into paths. Used by Index::restore_blocks.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "index/types.hpp"
#include "key.hpp"

namespace tiercel {

// The forest of the blocks that hang together with a root. Built in time linear in the number of blocks, whatever they
// contain: each block has one parent, so what cannot be reached from a root (cycles among it) is never visited.
class RestoredForest {
 public:
  static constexpr std::uint32_t kNone = ~std::uint32_t{0};

  // usable: blocks whose slot may be taken. roots: as for Index::restore_blocks.
  RestoredForest(std::span<const Key> parents, std::span<const Key> keys, const std::vector<bool>& usable,
                 std::span<const Key> roots);

  // Blocks reached, parents before children.
  const std::vector<std::uint32_t>& order() const noexcept { return order_; }
  bool is_top(std::uint32_t block) const noexcept { return parents_[block] == kNone; }
  std::uint32_t parent(std::uint32_t block) const noexcept { return parents_[block]; }
  std::uint32_t first_child(std::uint32_t block) const noexcept { return first_child_[block]; }
  std::uint32_t next_sibling(std::uint32_t block) const noexcept { return next_sibling_[block]; }
  // A block with exactly one child goes on in the same run.
  bool goes_on(std::uint32_t block) const noexcept {
    return first_child_[block] != kNone && next_sibling_[first_child_[block]] == kNone;
  }
  bool starts_run(std::uint32_t block) const noexcept { return is_top(block) || !goes_on(parents_[block]); }
  // All reached blocks by last use, the oldest first, where using a block uses its ancestors too: children first.
  std::vector<std::uint32_t> by_use() const;

 private:
  std::vector<std::uint32_t> parents_;
  std::vector<std::uint32_t> first_child_;
  std::vector<std::uint32_t> next_sibling_;
  std::vector<std::uint32_t> order_;
};

}  // namespace tiercel
