// What the paths of SHA-256 share: the round constants, and the SHA-NI rounds that `chain_ni.cpp` builds on too.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__x86_64__)
#define TIERCEL_HAVE_SHA_NI 1
#include <immintrin.h>
// Every function that uses the SHA extensions carries this; callers ask cpu_features().sha_ni first.
#define TIERCEL_TARGET_SHA_NI __attribute__((target("sha,sse4.1")))
#define TIERCEL_INLINE_SHA_NI TIERCEL_TARGET_SHA_NI __attribute__((always_inline)) inline
#endif

namespace tiercel::sha256 {

alignas(16) inline constexpr std::uint32_t kRoundConstants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

#ifdef TIERCEL_HAVE_SHA_NI

// The state as the sha256rnds2 instruction wants it: {f, e, b, a} and {h, g, d, c}, lowest lane first.
struct State {
  __m128i abef;
  __m128i cdgh;
};

// Sixteen words of the message schedule, a ring of four vectors.
struct Words {
  __m128i vectors[4];
};

TIERCEL_INLINE_SHA_NI State initial_state() noexcept {
  return {_mm_set_epi32(0x6a09e667, static_cast<int>(0xbb67ae85), 0x510e527f, static_cast<int>(0x9b05688c)),
          _mm_set_epi32(0x3c6ef372, static_cast<int>(0xa54ff53a), 0x1f83d9ab, 0x5be0cd19)};
}

TIERCEL_INLINE_SHA_NI __m128i swap_bytes(__m128i words) noexcept {
  return _mm_shuffle_epi8(words, _mm_setr_epi8(3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12));
}

TIERCEL_INLINE_SHA_NI Words load_words(const void* block) noexcept {
  const auto* vectors = static_cast<const __m128i*>(block);
  return {{swap_bytes(_mm_loadu_si128(vectors)), swap_bytes(_mm_loadu_si128(vectors + 1)),
           swap_bytes(_mm_loadu_si128(vectors + 2)), swap_bytes(_mm_loadu_si128(vectors + 3))}};
}

// Words 4 * step .. 4 * step + 3 with their round constants added; extends the schedule as needed.
TIERCEL_INLINE_SHA_NI __m128i schedule(Words& words, int step) noexcept {
  __m128i* ring = words.vectors;
  const int oldest = step & 3;
  if (step >= 4) {
    const __m128i newest = ring[(step + 3) & 3];
    __m128i sum = _mm_sha256msg1_epu32(ring[oldest], ring[(step + 1) & 3]);
    sum = _mm_add_epi32(sum, _mm_alignr_epi8(newest, ring[(step + 2) & 3], 4));
    ring[oldest] = _mm_sha256msg2_epu32(sum, newest);
  }
  const auto* constants = reinterpret_cast<const __m128i*>(kRoundConstants);
  return _mm_add_epi32(ring[oldest], _mm_load_si128(constants + step));
}

// The upper two of the four words, where sha256rnds2 looks for its input.
TIERCEL_INLINE_SHA_NI __m128i upper_half(__m128i words) noexcept { return _mm_shuffle_epi32(words, 0x0e); }

TIERCEL_INLINE_SHA_NI State compress(State start, Words words) noexcept {
  State state = start;
#pragma GCC unroll 16
  for (int step = 0; step < 16; ++step) {
    const __m128i input = schedule(words, step);
    state.cdgh = _mm_sha256rnds2_epu32(state.cdgh, state.abef, input);
    state.abef = _mm_sha256rnds2_epu32(state.abef, state.cdgh, upper_half(input));
  }
  return {_mm_add_epi32(state.abef, start.abef), _mm_add_epi32(state.cdgh, start.cdgh)};
}

// Two independent compressions, interleaved: one alone leaves the SHA unit idle for half of its latency.
struct StatePair {
  State first;
  State second;
};

TIERCEL_INLINE_SHA_NI StatePair compress_pair(State start, Words words, State other_start, Words other_words) noexcept {
  State state = start;
  State other = other_start;
#pragma GCC unroll 16
  for (int step = 0; step < 16; ++step) {
    const __m128i input = schedule(words, step);
    const __m128i other_input = schedule(other_words, step);
    state.cdgh = _mm_sha256rnds2_epu32(state.cdgh, state.abef, input);
    other.cdgh = _mm_sha256rnds2_epu32(other.cdgh, other.abef, other_input);
    state.abef = _mm_sha256rnds2_epu32(state.abef, state.cdgh, upper_half(input));
    other.abef = _mm_sha256rnds2_epu32(other.abef, other.cdgh, upper_half(other_input));
  }
  return {{_mm_add_epi32(state.abef, start.abef), _mm_add_epi32(state.cdgh, start.cdgh)},
          {_mm_add_epi32(other.abef, other_start.abef), _mm_add_epi32(other.cdgh, other_start.cdgh)}};
}

// The first four words of the digest, {a, b, c, d}.
TIERCEL_INLINE_SHA_NI __m128i digest_head(State state) noexcept {
  return _mm_shuffle_epi32(_mm_unpackhi_epi64(state.cdgh, state.abef), 0x1b);
}

#endif  // TIERCEL_HAVE_SHA_NI

}  // namespace tiercel::sha256
