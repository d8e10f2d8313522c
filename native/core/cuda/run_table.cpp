#include "cuda/run_table.hpp"

#include <algorithm>
#include <bit>
#include <numeric>

namespace tiercel::cuda {

std::vector<Run> list_runs(std::span<const CopyPiece> pieces) {
  std::vector<Run> runs;
  for (const CopyPiece& piece : pieces) {
    for (std::int64_t outer = 0; outer < piece.outer_count; ++outer) {
      for (std::int64_t inner = 0; inner < piece.inner_count; ++inner) {
        const std::int64_t engine =
            piece.engine_address + outer * piece.outer_engine_stride + inner * piece.inner_engine_stride;
        const std::int64_t slot = piece.slot_offset + outer * piece.outer_slot_stride + inner * piece.run_bytes;
        runs.push_back({.engine = static_cast<std::uint64_t>(engine),
                        .block_stride = piece.engine_block_stride,
                        .slot = static_cast<std::uint64_t>(slot),
                        .num_bytes = static_cast<std::uint64_t>(piece.run_bytes)});
      }
    }
  }
  std::ranges::sort(runs, {}, &Run::slot);
  std::vector<Run> merged;
  for (const Run& run : runs) {
    if (!merged.empty()) {
      Run& last = merged.back();
      if (last.engine + last.num_bytes == run.engine && last.slot + last.num_bytes == run.slot &&
          last.block_stride == run.block_stride) {
        last.num_bytes += run.num_bytes;
        continue;
      }
    }
    merged.push_back(run);
  }
  return merged;
}

std::vector<Run> split_evenly(std::span<const Run> runs) {
  std::uint64_t unit = 0;
  for (const Run& run : runs) unit = std::gcd(unit, run.num_bytes);
  std::vector<Run> units;
  for (const Run& run : runs) {
    for (std::uint64_t offset = 0; offset < run.num_bytes; offset += unit) {
      units.push_back({run.engine + offset, run.block_stride, run.slot + offset, unit});
    }
  }
  return units;
}

std::size_t widest_access(std::span<const Run> runs) noexcept {
  std::uint64_t bits = 16;
  for (const Run& run : runs)
    bits |= run.engine | static_cast<std::uint64_t>(run.block_stride) | run.slot | run.num_bytes;
  return std::size_t{1} << std::countr_zero(bits);
}

}  // namespace tiercel::cuda
