// Who holds each slot of a tier, and which slots are free: one 32-bit word a slot.
//
//   state          word                                    leaves it by
//   never used     (not read: at or behind `fresh_`)       take
//   free           number of the next free slot            take
//   writing        number of the reservation               make_ready, make_pinned_only
//   ready          kOwnedBit | pins                        disown -> free, or pinned only while pins > 0
//   pinned only    pins                                    unpin of the last one -> free
//
// Not thread-safe; the index's lock guards it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "index/lazy_array.hpp"
#include "index/prefetch.hpp"
#include "index/types.hpp"

namespace tiercel {

class SlotTable {
 public:
  explicit SlotTable(std::uint32_t num_slots) : words_(num_slots), num_slots_(num_slots), num_free_(num_slots) {}

  std::uint32_t num_slots() const noexcept { return num_slots_; }
  std::uint32_t num_free() const noexcept { return num_free_; }
  std::uint32_t num_ready() const noexcept { return num_ready_; }
  std::uint32_t num_writing() const noexcept { return num_writing_; }
  std::uint32_t num_pinned() const noexcept { return num_pinned_; }
  std::size_t num_bytes() const noexcept { return fresh_ * sizeof(std::uint32_t); }

  // Needs num_free() > 0. Slots come in ascending order from a fresh table, and in the order of the last
  // `unpin` or `disown` first after that.
  Slot take(std::uint32_t reservation) noexcept {
    Slot slot = free_head_;
    if (slot != kNone) {
      free_head_ = words_[slot];
    } else {
      slot = fresh_++;
    }
    words_[slot] = reservation;
    --num_free_;
    ++num_writing_;
    return slot;
  }
  std::uint32_t reservation_of(Slot slot) const noexcept { return words_[slot]; }
  void make_ready(Slot slot) noexcept {
    words_[slot] = kOwnedBit;
    --num_writing_;
    ++num_ready_;
  }
  // With one pin, that of the reservation.
  void make_pinned_only(Slot slot) noexcept {
    words_[slot] = 1;
    --num_writing_;
    ++num_pinned_;
  }

  void prefetch(Slot slot) const noexcept { tiercel::prefetch(&words_[slot]); }
  bool is_pinned(Slot slot) const noexcept { return (words_[slot] & ~kOwnedBit) != 0; }
  void pin(Slot slot) noexcept { num_pinned_ += (words_[slot]++ & ~kOwnedBit) == 0; }
  void unpin(Slot slot) noexcept {
    const std::uint32_t word = --words_[slot];
    if ((word & ~kOwnedBit) != 0) return;
    --num_pinned_;
    if (word == 0) put_free(slot);
  }
  // The index lets go of a ready slot.
  void disown(Slot slot) noexcept {
    --num_ready_;
    words_[slot] &= ~kOwnedBit;
    if (words_[slot] == 0) put_free(slot);
  }

  // For recovery and checks: one flag a slot, true where it is free.
  std::vector<bool> free_slots() const;
  // Take slots out of the free list by number, straight to `ready`. `is_free` is what `free_slots` returned, less them.
  void adopt(const std::vector<Slot>& slots, const std::vector<bool>& is_free);

 private:
  static constexpr std::uint32_t kOwnedBit = std::uint32_t{1} << 31;
  static constexpr Slot kNone = ~Slot{0};

  void put_free(Slot slot) noexcept {
    words_[slot] = free_head_;
    free_head_ = slot;
    ++num_free_;
  }

  LazyArray<std::uint32_t> words_;
  std::uint32_t num_slots_;
  Slot free_head_ = kNone;
  Slot fresh_ = 0;  // slots from here on were never used
  std::uint32_t num_free_;
  std::uint32_t num_ready_ = 0;
  std::uint32_t num_writing_ = 0;
  std::uint32_t num_pinned_ = 0;
};

}  // namespace tiercel
