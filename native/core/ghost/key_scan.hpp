// Which of many keys are sampled: few are, so sixteen at a time are looked at without a branch for each.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "key.hpp"

namespace tiercel {

constexpr std::size_t kKeysAtOnce = 16;

#if defined(__SSE2__)

// The upper halves of four keys' first eight bytes.
inline __m128i upper_halves(const Key* keys) noexcept {
  const auto load = [keys](std::size_t at) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(keys + at)); };
  return _mm_unpackhi_epi64(_mm_unpacklo_epi32(load(0), load(1)), _mm_unpacklo_epi32(load(2), load(3)));
}

// A bit for each of the sixteen keys whose hash64 may be at or below the threshold: the halves that are compared may be
// equal. No other key's is.
inline std::uint32_t find_low(const Key* keys, std::uint64_t threshold) noexcept {
  const __m128i sign = _mm_set1_epi32(static_cast<int>(0x80000000u));  // there is a comparison of signed numbers only
  const __m128i limit = _mm_xor_si128(_mm_set1_epi32(static_cast<int>(threshold >> 32)), sign);
  const auto above = [&](std::size_t at) {
    return _mm_cmpgt_epi32(_mm_xor_si128(upper_halves(keys + at), sign), limit);
  };
  const __m128i first = _mm_packs_epi32(above(0), above(4));
  const __m128i second = _mm_packs_epi32(above(8), above(12));
  return ~static_cast<std::uint32_t>(_mm_movemask_epi8(_mm_packs_epi16(first, second))) & 0xffffu;
}

#else

inline std::uint32_t find_low(const Key* keys, std::uint64_t threshold) noexcept {
  std::uint32_t found = 0;
  for (std::size_t at = 0; at < kKeysAtOnce; ++at) {
    found |= static_cast<std::uint32_t>(keys[at].hash64() <= threshold) << at;
  }
  return found;
}

#endif

}  // namespace tiercel
