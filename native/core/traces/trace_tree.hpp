// The blocks of a request trace as one tree: a block is one with another exactly if everything before it is the same
// too.
//
// `TraceTree` numbers blocks while a trace is read, whatever names its source gives to them; the functions below it
// answer what is asked of the finished tree, each in one pass over arrays in which parents come before their children.
// Memory: 20 to 40 bytes a different block while reading, 4 afterwards. Not thread-safe: one reader owns a tree.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace tiercel {

inline constexpr std::int32_t kNoBlock = -1;

class TraceTree {
 public:
  TraceTree();

  // Walks a path from its first block on and adds what is new of it. Names mean the same only within one scope, and
  // only below the same parent. Returns the deepest block, kNoBlock for an empty path. std::length_error beyond 2^31 -
  // 1 blocks.
  std::int32_t add(std::span<const std::uint64_t> names, std::int32_t scope);

  std::size_t num_blocks() const noexcept { return parents_.size(); }
  std::size_t memory_bytes() const noexcept;
  // Of each block its parent, kNoBlock for a sequence's first one.
  std::vector<std::int32_t> parents() const;

 private:
  // Below a root stands its scope, as a negative number.
  std::int32_t child(std::int32_t parent, std::uint64_t name);
  std::size_t place(std::int32_t parent, std::uint64_t name) const noexcept;
  void grow();

  std::vector<std::int32_t> parents_;
  std::vector<std::uint64_t> names_;
  std::vector<std::int32_t> table_;  // open addressing, a power of two; kNoBlock where nothing is
};

// Blocks before each block. std::invalid_argument unless each parent comes before its child.
std::vector<std::int32_t> trace_depths(std::span<const std::int32_t> parents);

// Of each block the first request whose path holds it; the number of requests if none does. `leaves` holds each
// request's deepest block. std::invalid_argument if one is none of the tree's.
std::vector<std::int32_t> trace_first_uses(std::span<const std::int32_t> parents, std::span<const std::int32_t> leaves);

// The paths of some leaves one behind the other, each from its first block on. std::invalid_argument as above.
std::vector<std::int32_t> trace_paths(std::span<const std::int32_t> parents, std::span<const std::int32_t> depths,
                                      std::span<const std::int32_t> leaves);

}  // namespace tiercel
