// Copies between an engine's memory, where a block lies in many runs, and slots, where it is contiguous.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace tiercel {

// A strided box of equal runs: `outer_count` times `inner_count` runs of `run_bytes`. In the slot the inner runs lie
// back to back. Nine int64, as they come from Python.
struct CopyPiece {
  std::int64_t engine_address;       // of block 0
  std::int64_t engine_block_stride;  // bytes from a block to the next
  std::int64_t slot_offset;
  std::int64_t outer_count;
  std::int64_t outer_engine_stride;
  std::int64_t outer_slot_stride;
  std::int64_t inner_count;
  std::int64_t inner_engine_stride;
  std::int64_t run_bytes;
};

// Immutable, so any number of threads may copy with one program at once. The addresses are the caller's to answer for:
// neither side of a copy may be unmapped, or written by others, while it runs.
class CopyProgram {
 public:
  static constexpr std::size_t kNumFields = sizeof(CopyPiece) / sizeof(std::int64_t);

  // std::invalid_argument if a piece is malformed, leaves [0, block_bytes) or overlaps another in the slot. Gaps are
  // allowed: a tensor-parallel shard writes only its part of a slot.
  CopyProgram(std::span<const CopyPiece> pieces, std::int64_t block_bytes);

  // Copy engine block blocks[i] to or from the slot at slots[i]. std::invalid_argument, before a byte is copied, if the
  // lengths differ, a block is negative or an address null.
  void gather(std::span<const std::int64_t> blocks, std::span<const std::uint64_t> targets, int num_threads) const;
  void scatter(std::span<const std::int64_t> blocks, std::span<const std::uint64_t> sources, int num_threads) const;

  std::size_t bytes_per_block() const noexcept { return bytes_per_block_; }  // that a copy moves, gaps not counted
  std::span<const CopyPiece> pieces() const noexcept { return pieces_; }

 private:
  std::vector<CopyPiece> pieces_;  // runs that touch on both sides are merged
  std::size_t bytes_per_block_ = 0;
};

// Copy block_bytes from each source to the target of the same index. No range may overlap a target.
void copy_blocks(std::span<const std::uint64_t> sources, std::span<const std::uint64_t> targets,
                 std::size_t block_bytes, int num_threads);

}  // namespace tiercel
