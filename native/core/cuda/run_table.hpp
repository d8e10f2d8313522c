// A copy program's pieces as plain lists of runs: what the copy engine is given, and what a kernel indexes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "memory/copy.hpp"

namespace tiercel::cuda {

// One run of a block. Laid out as copy_blocks.cu reads it.
struct Run {
  std::uint64_t engine;       // address in block 0
  std::int64_t block_stride;  // bytes from an engine's block to the next
  std::uint64_t slot;         // offset in the slot
  std::uint64_t num_bytes;    // the kernel ignores it
};
static_assert(sizeof(Run) == 32);

// Every run of a block, in the order of the slot; neighbours that touch on both sides are one.
std::vector<Run> list_runs(std::span<const CopyPiece> pieces);

// The same in runs of equal length, the greatest that divides all of them.
std::vector<Run> split_evenly(std::span<const Run> runs);

// The widest access, 16 to 1 bytes, that fits every address and length of these runs. Slot addresses are not in it.
std::size_t widest_access(std::span<const Run> runs) noexcept;

}  // namespace tiercel::cuda
