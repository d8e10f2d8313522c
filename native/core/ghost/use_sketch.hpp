// How often each key was used of late, roughly and never too low: one counter for all keys that share a cell. Halving
// all counters now and then lets what is used no more fade away.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace tiercel {

class UseSketch {
 public:
  std::uint32_t add(std::uint64_t key) noexcept {
    std::uint16_t& counter = counters_[cell_of(key)];
    if (counter < std::numeric_limits<std::uint16_t>::max()) ++counter;
    return counter;
  }
  std::uint32_t count(std::uint64_t key) const noexcept { return counters_[cell_of(key)]; }

  void halve() noexcept {
    for (std::uint16_t& counter : counters_) counter = static_cast<std::uint16_t>(counter / 2);
  }
  void clear() noexcept { counters_.fill(0); }

 private:
  // 32 KiB: every block looked up touches a cell, so they are to stay in the first cache.
  static constexpr std::size_t kCells = std::size_t{1} << 14;
  // Other bits than those that decide over sampling, which are all alike in the samples.
  static std::size_t cell_of(std::uint64_t key) noexcept { return (key >> 16) & (kCells - 1); }

  std::array<std::uint16_t, kCells> counters_{};
};

}  // namespace tiercel
