#include "memory/copy.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include "memory/copy_bytes.hpp"
#include "memory/parallel.hpp"

namespace tiercel {
namespace {

enum class Direction { kGather, kScatter };

// The pointers come from Python as integers.
std::byte* to_pointer(std::uint64_t address) noexcept { return reinterpret_cast<std::byte*>(address); }

void require(bool holds, std::size_t piece, const char* what) {
  if (!holds) throw std::invalid_argument("piece " + std::to_string(piece) + ": " + what);
}

void validate(const CopyPiece& piece, std::size_t index, std::int64_t block_bytes) {
  require(piece.engine_address > 0, index, "engine address must be positive");
  require(piece.outer_count > 0 && piece.inner_count > 0, index, "counts must be positive");
  require(piece.run_bytes > 0, index, "run bytes must be positive");
  constexpr const char* kLeaves = "leaves the block";
  require(piece.slot_offset >= 0 && piece.slot_offset < block_bytes, index, kLeaves);
  require(piece.run_bytes <= block_bytes / piece.inner_count, index, kLeaves);
  const std::int64_t dense_bytes = piece.inner_count * piece.run_bytes;
  std::int64_t extent = dense_bytes;
  if (piece.outer_count > 1) {
    require(piece.outer_slot_stride >= dense_bytes, index,
            "overlaps itself: outer slot stride < inner count * run bytes");
    require(piece.outer_count - 1 <= block_bytes / piece.outer_slot_stride, index, kLeaves);
    extent += (piece.outer_count - 1) * piece.outer_slot_stride;
  }
  require(extent <= block_bytes - piece.slot_offset, index, kLeaves);
}

// The same piece in fewer, longer runs where runs touch on both sides.
CopyPiece merge_runs(CopyPiece piece) noexcept {
  if (piece.inner_count > 1 && piece.inner_engine_stride == piece.run_bytes) {
    piece.run_bytes *= std::exchange(piece.inner_count, 1);
  }
  const bool is_dense = piece.inner_count == 1 && piece.outer_slot_stride == piece.run_bytes;
  if (piece.outer_count > 1 && is_dense && piece.outer_engine_stride == piece.run_bytes) {
    piece.run_bytes *= std::exchange(piece.outer_count, 1);
  }
  return piece;
}

void reject_overlaps(std::span<const CopyPiece> pieces) {
  std::vector<std::pair<std::int64_t, std::int64_t>> ranges;  // in the slot: start, stop
  for (const CopyPiece& piece : pieces) {
    for (std::int64_t outer = 0; outer < piece.outer_count; ++outer) {
      const std::int64_t start = piece.slot_offset + outer * piece.outer_slot_stride;
      ranges.emplace_back(start, start + piece.inner_count * piece.run_bytes);
    }
  }
  std::sort(ranges.begin(), ranges.end());
  for (std::size_t i = 1; i < ranges.size(); ++i) {
    if (ranges[i].first < ranges[i - 1].second) {
      throw std::invalid_argument("pieces overlap at byte " + std::to_string(ranges[i].first) + " of the block");
    }
  }
}

// One box of runs of one block, with the pointers to its first run on either side.
struct Box {
  const CopyPiece* piece;
  std::byte* engine;
  std::byte* slot;
};

Box locate(const CopyPiece& piece, std::int64_t block, std::uint64_t slot_address) noexcept {
  return {&piece, to_pointer(static_cast<std::uint64_t>(piece.engine_address)) + block * piece.engine_block_stride,
          to_pointer(slot_address) + piece.slot_offset};
}

template <Direction direction>
void copy_box(const Box& box, const Box& next_box, StoreKind kind) noexcept {
  const CopyPiece& piece = *box.piece;
  const auto run_bytes = static_cast<std::size_t>(piece.run_bytes);
  for (std::int64_t outer = 0; outer < piece.outer_count; ++outer) {
    std::byte* engine = box.engine + outer * piece.outer_engine_stride;
    std::byte* slot = box.slot + outer * piece.outer_slot_stride;
    for (std::int64_t inner = 0; inner < piece.inner_count; ++inner) {
      const bool is_last = outer + 1 == piece.outer_count && inner + 1 == piece.inner_count;
      if constexpr (direction == Direction::kGather) {
        copy_bytes(slot, engine, run_bytes, is_last ? next_box.engine : engine + piece.inner_engine_stride, kind);
      } else {
        copy_bytes(engine, slot, run_bytes, is_last ? next_box.slot : slot + run_bytes, kind);
      }
      engine += piece.inner_engine_stride;
      slot += run_bytes;
    }
  }
}

void require_addresses(std::span<const std::uint64_t> addresses) {
  if (std::ranges::find(addresses, 0u) != addresses.end()) throw std::invalid_argument("an address is null");
}

void require_same_length(std::size_t left, std::size_t right) {
  if (left == right) return;
  throw std::invalid_argument("arrays differ in length: " + std::to_string(left) + " and " + std::to_string(right));
}

// Threads take ranges of (block, piece) pairs, so that one large block can keep several of them busy.
template <Direction direction>
void run_program(std::span<const CopyPiece> pieces, std::size_t bytes_per_block, std::span<const std::int64_t> blocks,
                 std::span<const std::uint64_t> slots, int num_threads) {
  require_same_length(blocks.size(), slots.size());
  require_addresses(slots);
  if (std::ranges::any_of(blocks, [](std::int64_t block) { return block < 0; })) {
    throw std::invalid_argument("a block is negative");
  }
  const std::size_t num_bytes = bytes_per_block * blocks.size();
  const StoreKind kind = choose_store_kind(num_bytes);
  split_over_threads(blocks.size() * pieces.size(), num_bytes, num_threads, [&](std::size_t first, std::size_t last) {
    const auto locate_unit = [&](std::size_t unit) {
      const std::size_t block = unit / pieces.size();
      return locate(pieces[unit % pieces.size()], blocks[block], slots[block]);
    };
    Box box = locate_unit(first);
    for (std::size_t unit = first; unit < last; ++unit) {
      const Box next_box = unit + 1 < last ? locate_unit(unit + 1) : box;
      copy_box<direction>(box, next_box, kind);
      box = next_box;
    }
    finish_stores(kind);
  });
}

}  // namespace

CopyProgram::CopyProgram(std::span<const CopyPiece> pieces, std::int64_t block_bytes) {
  if (block_bytes <= 0) throw std::invalid_argument("block_bytes must be positive");
  if (pieces.empty()) throw std::invalid_argument("a copy program needs at least one piece");
  pieces_.reserve(pieces.size());
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    validate(pieces[i], i, block_bytes);
    pieces_.push_back(merge_runs(pieces[i]));
    bytes_per_block_ += static_cast<std::size_t>(pieces[i].outer_count * pieces[i].inner_count * pieces[i].run_bytes);
  }
  reject_overlaps(pieces_);
}

void CopyProgram::gather(std::span<const std::int64_t> blocks, std::span<const std::uint64_t> targets,
                         int num_threads) const {
  run_program<Direction::kGather>(pieces_, bytes_per_block_, blocks, targets, num_threads);
}

void CopyProgram::scatter(std::span<const std::int64_t> blocks, std::span<const std::uint64_t> sources,
                          int num_threads) const {
  run_program<Direction::kScatter>(pieces_, bytes_per_block_, blocks, sources, num_threads);
}

void copy_blocks(std::span<const std::uint64_t> sources, std::span<const std::uint64_t> targets,
                 std::size_t block_bytes, int num_threads) {
  require_same_length(sources.size(), targets.size());
  require_addresses(sources);
  require_addresses(targets);
  if (block_bytes == 0) throw std::invalid_argument("block_bytes must be positive");
  const std::size_t num_bytes = sources.size() * block_bytes;
  const StoreKind kind = choose_store_kind(num_bytes);
  split_over_threads(sources.size(), num_bytes, num_threads, [&](std::size_t first, std::size_t last) {
    for (std::size_t i = first; i < last; ++i) {
      const std::byte* next = to_pointer(sources[std::min(i + 1, last - 1)]);
      copy_bytes(to_pointer(targets[i]), to_pointer(sources[i]), block_bytes, next, kind);
    }
    finish_stores(kind);
  });
}

}  // namespace tiercel
