#include "curve/belady.hpp"

#include <algorithm>
#include <queue>

namespace tiercel {

Belady::Belady(std::span<const BlockId> parents, std::span<const BlockId> leaves, const Pulse& pulse) {
  check_parents(parents);
  check_leaves(leaves, parents.size());
  constexpr std::int32_t kNever = -1;
  std::vector<std::int32_t> next_uses(parents.size(), kNever);
  stops_.reserve(leaves.size());
  Pulses pulses(pulse);
  for (std::size_t request = leaves.size(); request-- > 0;) {
    const std::size_t first = stretches_.size();
    std::size_t length = 1;
    for (BlockId block = leaves[request]; block != kNoBlockId; block = parents[static_cast<std::size_t>(block)]) {
      const std::int32_t next = next_uses[static_cast<std::size_t>(block)];
      next_uses[static_cast<std::size_t>(block)] = static_cast<std::int32_t>(request);
      if (next != kNever) {
        if (stretches_.size() == first || stretches_.back().next != next) stretches_.push_back({next, 0});
        ++stretches_.back().count;
      }
      ++length;
    }
    stops_.push_back(stretches_.size());
    pulses.advance(length);
  }
}

std::vector<std::int32_t> Belady::hits(std::size_t capacity, const Pulse& pulse) const {
  // Of each request, how many blocks are cached whose next use it is. Once it is at hand, that stays as what it hit.
  std::vector<std::int32_t> cached(num_requests());
  std::priority_queue<std::int32_t> farthest;  // requests with blocks cached, and some that have none any more
  std::size_t num_cached = 0;
  Pulses pulses(pulse);
  for (std::size_t request = 0; request < num_requests(); ++request) {
    num_cached -= static_cast<std::size_t>(cached[request]);
    const std::size_t from_end = num_requests() - 1 - request;
    const std::size_t first = from_end == 0 ? 0 : stops_[from_end - 1];
    for (std::size_t at = first; at < stops_[from_end]; ++at) {
      const Stretch& stretch = stretches_[at];
      std::int32_t& count = cached[static_cast<std::size_t>(stretch.next)];
      if (count == 0) farthest.push(stretch.next);
      count += stretch.count;
      num_cached += static_cast<std::size_t>(stretch.count);
    }
    while (num_cached > capacity) {
      std::int32_t& count = cached[static_cast<std::size_t>(farthest.top())];
      const std::size_t num_leaving = std::min(num_cached - capacity, static_cast<std::size_t>(count));
      count -= static_cast<std::int32_t>(num_leaving);
      num_cached -= num_leaving;
      if (count == 0) farthest.pop();
    }
    pulses.advance(stops_[from_end] - first + 1);
  }
  return cached;
}

}  // namespace tiercel
