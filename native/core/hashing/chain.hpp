// The key chain: how the key of a block follows from the key before it and the block's tokens.
//
//   key[i + 1] = SHA-256(tokens of block i || key[i] || extras of block i || uint32 len(extras) || uint32
//   tokens_per_block)[:16]
//
// all integers little endian, tokens as int32. Read from its end, the message falls apart in one way only, so no two
// inputs serialise alike, and none looks like the message of a root key, which ends in tokens_per_block = 0.
// The tokens stand first because all that precedes key[i] can be hashed before key[i] is known: with 16 tokens a block
// that is one of the two compressions, which then runs beside the other one of the block before.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "hashing/sha256.hpp"
#include "key.hpp"

namespace tiercel {

// Write the keys of the whole blocks in `tokens` to out[0, tokens.size() / tokens_per_block), none of which has extras.
// parent: key of the block before the first. out may not alias parent.
void chain_keys(const Key& parent, std::span<const std::int32_t> tokens, std::size_t tokens_per_block, Key* out,
                Sha256Path path = fastest_sha256_path()) noexcept;

// Key of one block with extras; tokens are exactly the block's.
Key chain_key(const Key& parent, std::span<const std::int32_t> tokens, std::span<const std::byte> extras,
              Sha256Path path = fastest_sha256_path()) noexcept;

}  // namespace tiercel
