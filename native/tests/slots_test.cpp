#include <algorithm>
#include <cstring>
#include <map>
#include <set>
#include <vector>

#include "check.hpp"
#include "index/slab_pool.hpp"
#include "index/slot_table.hpp"
#include "random.hpp"

namespace tiercel {
namespace {

using testing::Random;

TEST(pieces_of_a_slab_pool_never_overlap_and_their_memory_is_used_again) {
  Random random(testing::seed());
  SlabPool pool;
  struct Piece {
    unsigned char* memory;
    std::size_t num_units;
    unsigned char mark;
  };
  std::vector<Piece> pieces;
  std::size_t largest = 0;
  for (int round = 0; round < 20'000; ++round) {
    const bool grows = pieces.size() < 200 || (pieces.size() < 2000 && random.below(2) == 0);
    if (grows) {
      const std::size_t wanted = random.below(50) == 0 ? 1 + random.below(5000) : 1 + random.below(100);
      const std::size_t num_units = SlabPool::round_length(wanted);
      CHECK(num_units >= wanted && num_units <= wanted + wanted / 4 + 1);
      const auto mark = static_cast<unsigned char>(random.next());
      auto* memory = static_cast<unsigned char*>(pool.allocate(num_units));
      std::memset(memory, mark, num_units * SlabPool::kUnitBytes);
      pieces.push_back({memory, num_units, mark});
    } else {
      std::swap(pieces[random.below(pieces.size())], pieces.back());
      const Piece piece = pieces.back();
      pieces.pop_back();
      const std::size_t num_bytes = piece.num_units * SlabPool::kUnitBytes;
      CHECK(
          std::all_of(piece.memory, piece.memory + num_bytes, [&](unsigned char byte) { return byte == piece.mark; }));
      pool.free(piece.memory, piece.num_units);
    }
    if (round == 10'000) largest = pool.num_bytes();
  }
  CHECK(pool.num_bytes() < 2 * largest);
  for (const Piece& piece : pieces) pool.free(piece.memory, piece.num_units);
}

TEST(a_slot_table_agrees_with_a_plain_model) {
  Random random(testing::seed());
  constexpr std::uint32_t kNumSlots = 64;
  SlotTable table(kNumSlots);
  std::set<Slot> writing;
  std::map<Slot, std::uint32_t> ready, pinned_only;  // with their pins
  const auto any_of = [&](auto& group) {
    return std::next(group.begin(), static_cast<std::ptrdiff_t>(random.below(group.size())));
  };
  for (int round = 0; round < 50'000; ++round) {
    const std::uint64_t act = random.below(6);
    if (act == 0 && table.num_free() > 0) {
      const Slot slot = table.take(7);
      CHECK(slot < kNumSlots && !writing.contains(slot) && !ready.contains(slot) && !pinned_only.contains(slot));
      CHECK(table.reservation_of(slot) == 7);
      writing.insert(slot);
    } else if (act == 1 && !writing.empty()) {
      const Slot slot = *any_of(writing);
      writing.erase(slot);
      if (random.below(4) == 0) {
        table.make_pinned_only(slot);
        pinned_only[slot] = 1;
      } else {
        table.make_ready(slot);
        ready[slot] = 0;
      }
    } else if (act == 2 && !ready.empty()) {
      const auto entry = any_of(ready);
      table.pin(entry->first);
      ++entry->second;
    } else if (act == 3 && !ready.empty()) {
      const auto entry = any_of(ready);
      if (entry->second == 0) continue;
      table.unpin(entry->first);
      --entry->second;
    } else if (act == 4 && !ready.empty()) {
      const auto entry = any_of(ready);
      table.disown(entry->first);
      if (entry->second > 0) pinned_only.insert(*entry);
      ready.erase(entry);
    } else if (act == 5 && !pinned_only.empty()) {
      const auto entry = any_of(pinned_only);
      table.unpin(entry->first);
      if (--entry->second == 0) pinned_only.erase(entry);
    }
    const auto num_pinned =
        std::count_if(ready.begin(), ready.end(), [](const auto& entry) { return entry.second > 0; });
    CHECK(table.num_writing() == writing.size());
    CHECK(table.num_ready() == ready.size());
    CHECK(table.num_pinned() == pinned_only.size() + static_cast<std::size_t>(num_pinned));
    CHECK(table.num_free() == kNumSlots - writing.size() - ready.size() - pinned_only.size());
  }
}

}  // namespace
}  // namespace tiercel
