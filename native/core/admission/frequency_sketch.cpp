#include "admission/frequency_sketch.hpp"

#include <algorithm>
#include <bit>
#include <stdexcept>
#include <string>

namespace tiercel {
namespace {

// With this many keys to a line of 4 rows of 32 counters, about one unseen key in 200 shares all four of its counters.
constexpr std::size_t kKeysPerLine = 8;

}  // namespace

FrequencySketch::FrequencySketch(std::size_t window) : window_(window) {
  if (window == 0 || window > kWindowMax) {
    throw std::invalid_argument("window: must be 1 to " + std::to_string(kWindowMax) + " sightings");
  }
  const std::size_t num_lines = std::bit_ceil((window + kKeysPerLine - 1) / kKeysPerLine);
  for (std::vector<Line>& lines : lines_) lines.resize(num_lines);
}

FrequencySketch::Place FrequencySketch::place_of(const Key& key) const noexcept {
  std::uint64_t low;
  std::uint32_t high;
  std::memcpy(&low, key.bytes.data(), sizeof low);
  std::memcpy(&high, key.bytes.data() + sizeof low, sizeof high);
  Place place{};
  place.line = static_cast<std::size_t>(low) & (lines_[0].size() - 1);
  for (std::size_t row = 0; row < kNumRows; ++row) {
    const std::uint32_t bits = (high >> (5 * row)) & 31;
    place.word[row] = static_cast<std::uint8_t>(kWordsPerRow * row + (bits >> 4));
    place.shift[row] = static_cast<std::uint8_t>(4 * (bits & 15));
  }
  return place;
}

std::uint64_t FrequencySketch::least_counter(const Line& line, const Place& place) noexcept {
  std::uint64_t least = kCounterMax;
  for (std::size_t row = 0; row < kNumRows; ++row) {
    least = std::min(least, (line.words[place.word[row]] >> place.shift[row]) & kCounterMax);
  }
  return least;
}

void FrequencySketch::see(const Key& key) noexcept {
  if (num_seen_ == window_) {
    current_ ^= 1;
    std::fill(lines_[current_].begin(), lines_[current_].end(), Line{});
    num_seen_ = 0;
  }
  ++num_seen_;
  const Place place = place_of(key);
  Line& line = lines_[current_][place.line];
  const std::uint64_t least = least_counter(line, place);
  if (least == kCounterMax) return;
  for (std::size_t row = 0; row < kNumRows; ++row) {
    std::uint64_t& word = line.words[place.word[row]];
    if (((word >> place.shift[row]) & kCounterMax) == least) word += std::uint64_t{1} << place.shift[row];
  }
}

std::uint32_t FrequencySketch::count(const Key& key) const noexcept {
  const Place place = place_of(key);
  return static_cast<std::uint32_t>(least_counter(lines_[0][place.line], place) +
                                    least_counter(lines_[1][place.line], place));
}

std::size_t FrequencySketch::count_leading(std::span<const Key> keys, std::uint32_t least) const noexcept {
  std::size_t num_leading = 0;
  while (num_leading < keys.size() && count(keys[num_leading]) >= least) ++num_leading;
  return num_leading;
}

}  // namespace tiercel
