// The most blocks that any cache of a capacity could hit, knowing the future: Belady's MIN with bypass over prefix
// trees.
//
// After each request, of the blocks cached and those requested those stay whose next use comes soonest; what is never
// used again does not enter. A parent is used no later than its children, and of blocks with the same next use the
// deeper one leaves first, so what stays is always whole prefixes. That is also why nothing needs to be known of single
// blocks: those whose next use is request u lie on u's path, from some depth on, and those of them that are cached are
// the first ones. So a number a request is the whole state, and that of request u is what u will hit.
//
// Which next uses a request's blocks have does not depend on the capacity: it is found once, in one pass from the end
// of the trace, as stretches of one next use each. Memory: 4 bytes a block, 8 bytes a stretch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "curve/block_tree.hpp"
#include "curve/pulse.hpp"

namespace tiercel {

class Belady {
 public:
  // std::invalid_argument names what is out of range.
  Belady(std::span<const BlockId> parents, std::span<const BlockId> leaves, const Pulse& pulse);

  std::size_t num_requests() const noexcept { return stops_.size(); }
  // Of each request the leading blocks hit with so many blocks of room. O(stretches log requests).
  std::vector<std::int32_t> hits(std::size_t capacity, const Pulse& pulse) const;

 private:
  struct Stretch {
    std::int32_t next;   // request that uses them next
    std::int32_t count;  // blocks
  };

  std::vector<Stretch> stretches_;  // of the last request first
  std::vector<std::size_t> stops_;  // of each request, from the last one on: where its stretches end
};

}  // namespace tiercel
