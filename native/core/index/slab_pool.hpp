// Memory for the many small arrays of the index (keys and slots of runs): slabs of 64 KiB, each cut into pieces of one
// size. A piece carries no header; an empty slab serves any size again. Four sizes per doubling bound the waste by a
// quarter. Not thread-safe.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

namespace tiercel {

class SlabPool {
 public:
  static constexpr std::size_t kUnitBytes = 4;

  // Smallest length >= `length` that has a size of its own: 1..8, 10, 12, 14, 16, 20, 24, 28, 32, 40, ...
  // Four times such a length is one too, so arrays of 4-byte and of 16-byte items may share a capacity.
  static std::size_t round_length(std::size_t length) noexcept;

  // `num_units` must be a rounded length > 0. The memory is uninitialised and aligned to kUnitBytes.
  void* allocate(std::size_t num_units);
  void free(void* piece, std::size_t num_units) noexcept;

  std::size_t num_bytes() const noexcept { return regions_.size() * kRegionBytes - fresh_bytes_ + large_bytes_; }

 private:
  static constexpr std::size_t kSlabBytes = std::size_t{64} << 10;
  static constexpr std::size_t kRegionBytes = std::size_t{2} << 20;  // a huge page
  static constexpr std::size_t kPieceUnitsMax = 2048;                // larger pieces come from malloc
  static constexpr std::size_t kNumSizes = 40;
  static constexpr std::size_t kNumColours = 32;
  static constexpr std::size_t kLineBytes = 64;

  // Lies near the slab's start, at one of kNumColours offsets: at equal offsets, the headers of all slabs would compete
  // for the same few lines of the processor's cache.
  struct Slab {
    Slab* previous;
    Slab* next;
    std::uint32_t size;  // class of its pieces
    std::uint32_t num_live;
    std::uint32_t free_head;  // offset of the first freed piece, 0: none
    std::uint32_t fresh;      // offset behind the last piece ever handed out
  };
  struct Free {
    void operator()(void* memory) const noexcept { std::free(memory); }
  };

  static std::uintptr_t base_of(const void* piece) noexcept {
    return reinterpret_cast<std::uintptr_t>(piece) & ~std::uintptr_t{kSlabBytes - 1};
  }
  static std::size_t header_offset(std::uintptr_t base) noexcept {
    return base / kSlabBytes % kNumColours * kLineBytes;
  }
  static std::size_t size_of(std::size_t num_units) noexcept;
  static bool has_room(const Slab& slab, std::size_t piece_bytes) noexcept {
    return slab.free_head != 0 || slab.fresh + piece_bytes <= kSlabBytes;
  }
  Slab* take_slab();
  void link(Slab* slab) noexcept;
  void unlink(Slab* slab) noexcept;

  std::array<Slab*, kNumSizes> with_room_{};  // slabs of a size that have a piece to give
  std::vector<Slab*> idle_;                   // used before, empty now
  std::vector<std::unique_ptr<void, Free>> regions_;
  std::size_t fresh_bytes_ = 0;  // at the end of the last region, never touched
  std::size_t large_bytes_ = 0;
};

}  // namespace tiercel
