// How often was a block seen lately? A count-min sketch with conservative update over two windows: estimates are never
// too low within the windows, and seldom too high.
//
// Counters have 4 bits. Those of a key lie in one cache line, one in each of its four rows, all chosen by bits of the
// key itself. A window ends after a number of sightings; the counts of the window before stay readable, so what was
// seen just before the change is not forgotten with it. Not thread-safe: the owner guards it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "key.hpp"

namespace tiercel {

class FrequencySketch {
 public:
  static constexpr std::uint32_t kCountMax = 30;  // two windows of 15
  static constexpr std::size_t kWindowMax = std::size_t{1} << 28;

  // window: sightings after which the counts of the window before are forgotten. std::invalid_argument out of
  // [1, kWindowMax].
  explicit FrequencySketch(std::size_t window);

  void see(const Key& key) noexcept;
  std::uint32_t count(const Key& key) const noexcept;
  // How many leading keys were seen at least that often.
  std::size_t count_leading(std::span<const Key> keys, std::uint32_t least) const noexcept;

  std::size_t memory_bytes() const noexcept { return 2 * lines_[0].size() * sizeof(Line); }

 private:
  static constexpr std::size_t kNumRows = 4;
  static constexpr std::size_t kWordsPerRow = 2;
  static constexpr std::uint64_t kCounterMax = 15;

  struct alignas(64) Line {
    std::array<std::uint64_t, kNumRows * kWordsPerRow> words{};
  };
  struct Place {
    std::size_t line;
    std::array<std::uint8_t, kNumRows> word;
    std::array<std::uint8_t, kNumRows> shift;
  };

  Place place_of(const Key& key) const noexcept;
  static std::uint64_t least_counter(const Line& line, const Place& place) noexcept;

  std::size_t window_;
  std::size_t num_seen_ = 0;  // in this window
  std::array<std::vector<Line>, 2> lines_;
  std::size_t current_ = 0;
};

}  // namespace tiercel
