// A pinned result of a lookup.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "index/types.hpp"

namespace tiercel {

class Index;

// Consecutive blocks of a sequence in one tier.
struct Segment {
  std::uint32_t tier;
  std::uint32_t first_block;
  std::uint32_t num_blocks;
};

// Holds a pin on every slot until it is released, truncated or destroyed. One thread at a time.
class Match {
 public:
  Match(std::shared_ptr<Index> index, std::uint64_t generation) : index_(std::move(index)), generation_(generation) {}
  Match(Match&&) noexcept = default;
  Match& operator=(Match&&) = delete;
  ~Match();

  Index& index() const noexcept { return *index_; }
  const std::vector<Segment>& segments() const noexcept { return segments_; }
  const std::vector<Slot>& slots() const noexcept { return slots_; }
  std::uint32_t num_pending() const noexcept { return num_pending_; }
  std::uint64_t generation() const noexcept { return generation_; }

 private:
  friend class Index;

  std::shared_ptr<Index> index_;
  std::vector<Segment> segments_;
  std::vector<Slot> slots_;
  std::uint32_t num_pending_ = 0;
  std::uint64_t generation_;
};

}  // namespace tiercel
