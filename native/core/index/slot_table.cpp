#include "index/slot_table.hpp"

#include <algorithm>

namespace tiercel {

std::vector<bool> SlotTable::free_slots() const {
  std::vector<bool> is_free(num_slots_, true);
  std::fill(is_free.begin(), is_free.begin() + static_cast<std::ptrdiff_t>(fresh_), false);
  for (Slot slot = free_head_; slot != kNone; slot = words_[slot]) is_free[slot] = true;
  return is_free;
}

void SlotTable::adopt(const std::vector<Slot>& slots, const std::vector<bool>& is_free) {
  for (const Slot slot : slots) {
    words_[slot] = kOwnedBit;
    fresh_ = std::max(fresh_, slot + 1);
  }
  num_ready_ += static_cast<std::uint32_t>(slots.size());
  num_free_ = num_slots_ - fresh_;
  free_head_ = kNone;
  for (Slot slot = fresh_; slot-- > 0;) {
    if (is_free[slot]) put_free(slot);
  }
}

}  // namespace tiercel
