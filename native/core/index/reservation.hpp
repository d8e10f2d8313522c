// Slots taken for blocks that are about to be written.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "index/types.hpp"
#include "key.hpp"

namespace tiercel {

class Index;

// Consecutive blocks that another reservation is writing.
struct BlockRange {
  std::uint32_t first_block;
  std::uint32_t num_blocks;
  std::int64_t owner;
};

// Aborted when destroyed before it was committed. From the commit on it pins its slots, also those of blocks that did
// not become ready, until it is released or destroyed, so that moves that follow may read them. One thread at a time.
class Reservation {
 public:
  explicit Reservation(std::shared_ptr<Index> index) : index_(std::move(index)) {}
  Reservation(Reservation&& other) noexcept = default;
  Reservation& operator=(Reservation&&) = delete;
  ~Reservation();

  Index& index() const noexcept { return *index_; }
  bool is_open() const noexcept { return index_ != nullptr && is_open_; }
  bool has_pins() const noexcept { return index_ != nullptr && num_pinned_ != 0; }

  std::size_t tier = 0;
  std::int64_t owner = 0;
  std::uint32_t first_block = 0;  // of the sequence
  std::size_t num_short = 0;      // blocks asked for that found no slot
  Key parent_key{};               // of the block before the first
  std::vector<Key> keys;
  std::vector<Slot> slots;   // one a block
  std::vector<Slot> voided;  // evicted to make room
  std::vector<BlockRange> attached;

 private:
  friend class Index;

  std::shared_ptr<Index> index_;
  std::optional<std::uint32_t> number_;  // among the open reservations; none if it has no blocks
  bool is_open_ = true;
  std::size_t num_pinned_ = 0;  // leading blocks
};

}  // namespace tiercel
