// A fixed number of bits that tells how many are set before any of them, in O(log) of the number of cache lines: a
// Fenwick tree over lines of 512 bits. Setting and clearing a stretch costs O(log) a line.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace tiercel {

class RankedBits {
 public:
  explicit RankedBits(std::size_t num_bits)
      : words_((num_bits / kBitsPerLine + 1) * kWordsPerLine), sums_(words_.size() / kWordsPerLine + 1) {}

  std::size_t count() const noexcept { return count_; }

  // How many are set at positions before this one.
  std::size_t count_before(std::size_t position) const noexcept {
    const std::size_t line = position / kBitsPerLine;
    std::size_t count = 0;
    for (std::size_t at = line; at > 0; at &= at - 1) count += sums_[at];
    const std::size_t word = position / 64;
    for (std::size_t at = line * kWordsPerLine; at < word; ++at) count += ones(words_[at]);
    return count + ones(words_[word] & ((std::uint64_t{1} << position % 64) - 1));
  }
  std::size_t count_from(std::size_t position) const noexcept { return count_ - count_before(position); }

  // All of these bits must be clear.
  void set(std::size_t first, std::size_t count) noexcept { flip(first, count, 1); }
  // All of these bits must be set.
  void clear(std::size_t first, std::size_t count) noexcept { flip(first, count, ~std::size_t{0}); }

  // Clear every bit; then put bits one by one, and count them all at once.
  void clear_all() noexcept;
  void put(std::size_t position) noexcept { words_[position / 64] |= std::uint64_t{1} << position % 64; }
  void recount() noexcept;

 private:
  static constexpr std::size_t kBitsPerLine = 512;
  static constexpr std::size_t kWordsPerLine = kBitsPerLine / 64;
  static std::size_t ones(std::uint64_t word) noexcept { return static_cast<std::size_t>(std::popcount(word)); }

  // sign: 1, or its negative in the arithmetic of unsigned numbers.
  void flip(std::size_t first, std::size_t count, std::size_t sign) noexcept;
  void add(std::size_t line, std::size_t amount) noexcept;

  std::vector<std::uint64_t> words_;
  std::vector<std::size_t> sums_;  // the Fenwick tree over lines, from 1
  std::size_t count_ = 0;
};

}  // namespace tiercel
