#include "hashing/chain.hpp"

#include <algorithm>
#include <bit>

#include "hashing/sha256_rounds.hpp"

namespace tiercel {
namespace {

static_assert(std::endian::native == std::endian::little, "tokens are hashed as they lie in memory");

#ifdef TIERCEL_HAVE_SHA_NI

constexpr std::size_t kFastTokens = 16;  // four bytes each: one block of SHA-256, behind which the key starts the next

// The second block of the message: key, no extras, their length 0, 16 tokens a block, padding, length in bits.
TIERCEL_INLINE_SHA_NI sha256::Words tail_words(__m128i key_words) noexcept {
  constexpr int kNumBits = 8 * (4 * kFastTokens + Key::kNumBytes + 4 + 4);
  return {{key_words, _mm_setr_epi32(0, kFastTokens << 24, static_cast<int>(0x80000000), 0), _mm_setzero_si128(),
           _mm_setr_epi32(0, 0, 0, kNumBits)}};
}

TIERCEL_INLINE_SHA_NI __m128i store_key(sha256::State state, Key* out) noexcept {
  const __m128i words = sha256::digest_head(state);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), sha256::swap_bytes(words));
  return words;
}

TIERCEL_TARGET_SHA_NI void chain_16_ni(const Key& parent, const std::int32_t* tokens, std::size_t num_blocks,
                                       Key* out) noexcept {
  const sha256::State initial = sha256::initial_state();
  __m128i key_words = sha256::swap_bytes(_mm_loadu_si128(reinterpret_cast<const __m128i*>(&parent)));
  sha256::State state = sha256::compress(initial, sha256::load_words(tokens));
  for (std::size_t i = 1; i < num_blocks; ++i) {
    tokens += kFastTokens;
    const sha256::StatePair pair =
        sha256::compress_pair(state, tail_words(key_words), initial, sha256::load_words(tokens));
    key_words = store_key(pair.first, out++);
    state = pair.second;
  }
  store_key(sha256::compress(state, tail_words(key_words)), out);
}

#endif

}  // namespace

Key chain_key(const Key& parent, std::span<const std::int32_t> tokens, std::span<const std::byte> extras,
              Sha256Path path) noexcept {
  Sha256 hash(path);
  hash.update(std::as_bytes(tokens));
  hash.update(std::as_bytes(std::span(parent.bytes)));
  hash.update(extras);
  const std::array<std::uint32_t, 2> sizes{static_cast<std::uint32_t>(extras.size()),
                                           static_cast<std::uint32_t>(tokens.size())};
  hash.update(std::as_bytes(std::span(sizes)));
  const Sha256::Digest digest = hash.finish();
  Key key;
  std::copy_n(digest.begin(), Key::kNumBytes, key.bytes.begin());
  return key;
}

void chain_keys(const Key& parent, std::span<const std::int32_t> tokens, std::size_t tokens_per_block, Key* out,
                Sha256Path path) noexcept {
  const std::size_t num_blocks = tokens.size() / tokens_per_block;
  if (num_blocks == 0) return;
#ifdef TIERCEL_HAVE_SHA_NI
  if (path == Sha256Path::kShaNi && tokens_per_block == kFastTokens) {
    return chain_16_ni(parent, tokens.data(), num_blocks, out);
  }
#endif
  const Key* previous = &parent;
  for (std::size_t block = 0; block < num_blocks; ++block) {
    out[block] = chain_key(*previous, tokens.subspan(block * tokens_per_block, tokens_per_block), {}, path);
    previous = &out[block];
  }
}

}  // namespace tiercel
