#include "hashing/sha256.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

#include "cpu.hpp"
#include "hashing/sha256_rounds.hpp"

namespace tiercel {
namespace {

using StateWords = std::array<std::uint32_t, 8>;

std::uint32_t load_big_endian(const std::byte* bytes) noexcept {
  std::uint32_t value = 0;
  for (int i = 0; i < 4; ++i) value = value << 8 | std::to_integer<std::uint32_t>(bytes[i]);
  return value;
}

void compress_portable(StateWords& state, const std::byte* block) noexcept {
  std::array<std::uint32_t, 64> words;
  for (std::size_t i = 0; i < 16; ++i) words[i] = load_big_endian(block + 4 * i);
  for (std::size_t i = 16; i < 64; ++i) {
    const std::uint32_t near = words[i - 2];
    const std::uint32_t far = words[i - 15];
    const std::uint32_t sigma1 = std::rotr(near, 17) ^ std::rotr(near, 19) ^ (near >> 10);
    const std::uint32_t sigma0 = std::rotr(far, 7) ^ std::rotr(far, 18) ^ (far >> 3);
    words[i] = words[i - 16] + sigma0 + words[i - 7] + sigma1;
  }
  auto [a, b, c, d, e, f, g, h] = state;
  for (std::size_t i = 0; i < 64; ++i) {
    const std::uint32_t sum1 = std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25);
    const std::uint32_t choice = (e & f) ^ (~e & g);
    const std::uint32_t sum0 = std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22);
    const std::uint32_t majority = (a & b) ^ (a & c) ^ (b & c);
    const std::uint32_t first = h + sum1 + choice + sha256::kRoundConstants[i] + words[i];
    h = g;
    g = f;
    f = e;
    e = d + first;
    d = c;
    c = b;
    b = a;
    a = first + sum0 + majority;
  }
  const StateWords end{a, b, c, d, e, f, g, h};
  for (std::size_t i = 0; i < state.size(); ++i) state[i] += end[i];
}

#ifdef TIERCEL_HAVE_SHA_NI
TIERCEL_TARGET_SHA_NI void compress_ni(StateWords& words, const std::byte* blocks, std::size_t num_blocks) noexcept {
  const auto* halves = reinterpret_cast<const __m128i*>(words.data());
  const __m128i dcba = _mm_shuffle_epi32(_mm_loadu_si128(halves), 0x1b);
  const __m128i hgfe = _mm_shuffle_epi32(_mm_loadu_si128(halves + 1), 0x1b);
  sha256::State state{_mm_unpackhi_epi64(hgfe, dcba), _mm_unpacklo_epi64(hgfe, dcba)};
  for (std::size_t i = 0; i < num_blocks; ++i) state = sha256::compress(state, sha256::load_words(blocks + 64 * i));
  auto* out = reinterpret_cast<__m128i*>(words.data());
  _mm_storeu_si128(out, _mm_shuffle_epi32(_mm_unpackhi_epi64(state.cdgh, state.abef), 0x1b));
  _mm_storeu_si128(out + 1, _mm_shuffle_epi32(_mm_unpacklo_epi64(state.cdgh, state.abef), 0x1b));
}
#endif

}  // namespace

Sha256Path fastest_sha256_path() noexcept { return cpu_features().sha_ni ? Sha256Path::kShaNi : Sha256Path::kPortable; }

void Sha256::compress(const std::byte* blocks, std::size_t num_blocks) noexcept {
#ifdef TIERCEL_HAVE_SHA_NI
  if (path_ == Sha256Path::kShaNi) return compress_ni(state_, blocks, num_blocks);
#endif
  for (std::size_t i = 0; i < num_blocks; ++i) compress_portable(state_, blocks + kBlockBytes * i);
}

void Sha256::update(std::span<const std::byte> data) noexcept {
  num_bytes_ += data.size();
  if (num_partial_ > 0) {
    const std::size_t num_taken = std::min(data.size(), kBlockBytes - num_partial_);
    std::copy_n(data.begin(), num_taken, partial_.begin() + static_cast<std::ptrdiff_t>(num_partial_));
    num_partial_ += num_taken;
    data = data.subspan(num_taken);
    if (num_partial_ < kBlockBytes) return;
    compress(partial_.data(), 1);
  }
  const std::size_t num_whole = data.size() / kBlockBytes;
  compress(data.data(), num_whole);
  data = data.subspan(num_whole * kBlockBytes);
  std::copy(data.begin(), data.end(), partial_.begin());
  num_partial_ = data.size();
}

Sha256::Digest Sha256::finish() noexcept {
  std::array<std::byte, 2 * kBlockBytes> tail{};
  std::copy_n(partial_.begin(), num_partial_, tail.begin());
  tail[num_partial_] = std::byte{0x80};
  const std::size_t num_blocks = num_partial_ + 9 <= kBlockBytes ? 1 : 2;
  const std::uint64_t num_bits = num_bytes_ * 8;
  for (std::size_t i = 0; i < 8; ++i) {
    tail[num_blocks * kBlockBytes - 1 - i] = static_cast<std::byte>(num_bits >> (8 * i));
  }
  compress(tail.data(), num_blocks);
  Digest digest;
  for (std::size_t i = 0; i < digest.size(); ++i) {
    digest[i] = static_cast<std::uint8_t>(state_[i / 4] >> (24 - 8 * (i % 4)));
  }
  return digest;
}

}  // namespace tiercel
