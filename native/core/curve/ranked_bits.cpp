#include "curve/ranked_bits.hpp"

#include <algorithm>

namespace tiercel {

void RankedBits::add(std::size_t line, std::size_t amount) noexcept {
  for (std::size_t at = line + 1; at < sums_.size(); at += at & (~at + 1)) sums_[at] += amount;
}

void RankedBits::flip(std::size_t first, std::size_t count, std::size_t sign) noexcept {
  count_ += sign * count;
  for (std::size_t at = first; at < first + count;) {
    const std::size_t line = at / kBitsPerLine;
    const std::size_t stop = std::min(first + count, (line + 1) * kBitsPerLine);
    add(line, sign * (stop - at));
    while (at < stop) {
      const std::size_t num_here = std::min<std::size_t>(stop - at, 64 - at % 64);
      const std::uint64_t here = num_here == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << num_here) - 1;
      words_[at / 64] ^= here << at % 64;
      at += num_here;
    }
  }
}

void RankedBits::clear_all() noexcept {
  std::fill(words_.begin(), words_.end(), 0);
  std::fill(sums_.begin(), sums_.end(), 0);
  count_ = 0;
}

void RankedBits::recount() noexcept {
  count_ = 0;
  std::fill(sums_.begin(), sums_.end(), 0);
  for (std::size_t line = 0; line + 1 < sums_.size(); ++line) {
    std::size_t here = 0;
    for (std::size_t at = 0; at < kWordsPerLine; ++at) here += ones(words_[line * kWordsPerLine + at]);
    count_ += here;
    sums_[line + 1] += here;
    const std::size_t next = (line + 1) + ((line + 1) & (~(line + 1) + 1));
    if (next < sums_.size()) sums_[next] += sums_[line + 1];
  }
}

}  // namespace tiercel
