#include "index/slab_pool.hpp"

#include <sys/mman.h>

#include <bit>
#include <cstring>
#include <new>

namespace tiercel {

std::size_t SlabPool::round_length(std::size_t length) noexcept {
  if (length <= 8) return length;
  const std::size_t step = std::bit_floor(length - 1) / 4;
  return (length + step - 1) / step * step;
}

std::size_t SlabPool::size_of(std::size_t num_units) noexcept {
  if (num_units <= 8) return num_units - 1;
  const auto log = static_cast<std::size_t>(std::bit_width(num_units - 1)) - 1;  // 8 < num_units: log >= 3
  const std::size_t step = (std::size_t{1} << log) / 4;
  return 8 + (log - 3) * 4 + (num_units - (std::size_t{1} << log)) / step - 1;
}

void SlabPool::link(Slab* slab) noexcept {
  Slab*& head = with_room_[slab->size];
  slab->previous = nullptr;
  slab->next = head;
  if (head != nullptr) head->previous = slab;
  head = slab;
}

void SlabPool::unlink(Slab* slab) noexcept {
  (slab->previous != nullptr ? slab->previous->next : with_room_[slab->size]) = slab->next;
  if (slab->next != nullptr) slab->next->previous = slab->previous;
}

SlabPool::Slab* SlabPool::take_slab() {
  if (!idle_.empty()) {
    Slab* slab = idle_.back();
    idle_.pop_back();
    return slab;
  }
  if (fresh_bytes_ == 0) {
    idle_.reserve((regions_.size() + 1) * (kRegionBytes / kSlabBytes));  // so that `free` never allocates
    regions_.reserve(regions_.size() + 1);
    void* region = std::aligned_alloc(kRegionBytes, kRegionBytes);
    if (region == nullptr) throw std::bad_alloc();
    regions_.emplace_back(region);
    ::madvise(region, kRegionBytes, MADV_HUGEPAGE);  // only a hint
    fresh_bytes_ = kRegionBytes;
  }
  auto* end = static_cast<std::byte*>(regions_.back().get()) + kRegionBytes;
  std::byte* base = end - fresh_bytes_;
  fresh_bytes_ -= kSlabBytes;
  return reinterpret_cast<Slab*>(base + header_offset(base_of(base)));
}

void* SlabPool::allocate(std::size_t num_units) {
  const std::size_t piece_bytes = num_units * kUnitBytes;
  if (num_units > kPieceUnitsMax) {
    void* piece = std::malloc(piece_bytes);
    if (piece == nullptr) throw std::bad_alloc();
    large_bytes_ += piece_bytes;
    return piece;
  }
  const std::size_t size = size_of(num_units);
  Slab* slab = with_room_[size];
  if (slab == nullptr) {
    slab = take_slab();
    const auto first = static_cast<std::uint32_t>(header_offset(base_of(slab)) + sizeof(Slab));
    *slab = Slab{nullptr, nullptr, static_cast<std::uint32_t>(size), 0, 0, first};
    link(slab);
  }
  std::byte* piece;
  if (slab->free_head != 0) {
    piece = reinterpret_cast<std::byte*>(base_of(slab)) + slab->free_head;
    std::memcpy(&slab->free_head, piece, sizeof slab->free_head);
  } else {
    piece = reinterpret_cast<std::byte*>(base_of(slab)) + slab->fresh;
    slab->fresh += static_cast<std::uint32_t>(piece_bytes);
  }
  ++slab->num_live;
  if (!has_room(*slab, piece_bytes)) unlink(slab);
  return piece;
}

void SlabPool::free(void* piece, std::size_t num_units) noexcept {
  const std::size_t piece_bytes = num_units * kUnitBytes;
  if (num_units > kPieceUnitsMax) {
    large_bytes_ -= piece_bytes;
    std::free(piece);
    return;
  }
  const std::uintptr_t base = base_of(piece);
  auto* slab = reinterpret_cast<Slab*>(base + header_offset(base));
  const bool was_full = !has_room(*slab, piece_bytes);
  std::memcpy(piece, &slab->free_head, sizeof slab->free_head);
  slab->free_head = static_cast<std::uint32_t>(reinterpret_cast<std::uintptr_t>(piece) - base);
  if (was_full) link(slab);
  if (--slab->num_live == 0) {
    unlink(slab);
    idle_.push_back(slab);
  }
}

}  // namespace tiercel
