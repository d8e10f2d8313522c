// The tokens of one growing sequence and the keys of its full blocks, hashed on demand and only once.
//
// Threads: every method may be called from any thread at any time. Two locks, taken in the order hash, tokens:
//   - hash_mutex_ is held while blocks are hashed; it serialises the threads that need keys not hashed yet;
//   - tokens_mutex_ is held while tokens are appended or handed to the hasher, so `extend` never waits for hashing.
// Neither lock is ever held while foreign code runs, so callers may hold locks of their own around any call.
// Keys that are hashed never move and never change: reading them takes no lock, only an acquire of num_hashed_.
//
// Memory: 16 bytes a block (in levels that double, so up to 32 reserved), 4 bytes a token not yet hashed.
//
// A sequence may also be made of keys alone, by a process that never sees the tokens: its blocks are all hashed, and it
// has no partly filled one.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>

#include "hashing/token_buffer.hpp"
#include "key.hpp"

namespace tiercel {

class Sequence {
 public:
  using Extras = std::map<std::size_t, std::string>;  // block -> bytes that enter its key

  // tokens_per_block: a power of two up to kTokensPerBlockMax, else std::invalid_argument.
  // origin: what its maker wants to know it by again.
  // source: what it will be made of; keys are then given by append_keys, and extend refuses.
  enum class Source : std::uint8_t { kTokens, kKeys };
  Sequence(const Key& root, std::size_t tokens_per_block, std::uint64_t origin = 0, Source source = Source::kTokens);

  Sequence(const Sequence&) = delete;
  Sequence& operator=(const Sequence&) = delete;

  // Append tokens, each in [0, 2^31), and extras of blocks that have no token yet. std::invalid_argument (and an
  // unchanged sequence) otherwise, and for a sequence of keys.
  void extend(std::span<const std::int32_t> tokens, Extras extras = {});
  void extend(std::span<const std::int64_t> tokens, Extras extras = {});

  // Append the keys of the blocks that follow. std::invalid_argument for a sequence of tokens.
  void append_keys(std::span<const Key> keys);

  Source source() const noexcept { return source_; }
  const Key& root() const noexcept { return root_; }
  std::size_t tokens_per_block() const noexcept { return tokens_per_block_; }
  std::uint64_t origin() const noexcept { return origin_; }
  std::size_t num_tokens() const noexcept { return num_tokens_.load(std::memory_order_acquire); }

  // Full blocks; a partly filled last block has no key.
  std::size_t num_blocks() const noexcept { return num_tokens() >> block_shift_; }
  std::size_t num_hashed_blocks() const noexcept { return num_hashed_.load(std::memory_order_acquire); }

  // Hash the blocks before `stop` that are not hashed yet. std::invalid_argument if stop > num_blocks().
  void hash_to(std::size_t stop);

  // Copy the keys of blocks [start, stop), hashing no further than `stop`. std::invalid_argument unless
  // start <= stop <= num_blocks(). Costs a few nanoseconds and a memcpy when the keys are there already.
  void copy_keys(std::size_t start, std::size_t stop, Key* out);

  // The same without a copy: the longest contiguous leading part of [start, stop), at least one key unless the range is
  // empty, hashed no further than that. Ranges that do not cross a multiple of 64 come whole. The span stays valid and
  // unchanged as long as the sequence lives.
  std::span<const Key> stable_keys(std::size_t start, std::size_t stop);

  // Note that an admission filter has counted the blocks before `stop`. Returns where it had come to before: each block
  // of a sequence is counted once, however often the sequence is looked up or stored.
  std::size_t note_seen(std::size_t stop) noexcept;

  // Blocks that a lookup asked for and a ghost index is still to count, when somebody hashes them. Returns those noted
  // before.
  struct BlockRange {
    std::uint32_t start = 0;
    std::uint32_t stop = 0;
    friend bool operator==(BlockRange, BlockRange) = default;
  };
  BlockRange uncounted() const noexcept { return uncounted_.load(); }
  BlockRange exchange_uncounted(BlockRange range) noexcept { return uncounted_.exchange(range); }

  // Key of the block before `block`; the root for block 0. std::invalid_argument if block > num_blocks().
  Key parent_key(std::size_t block);

  static constexpr std::size_t kTokensPerBlockMax = 65536;

 private:
  // Level n holds kFirstLevelKeys << n keys. Block b lies in the level of b + kFirstLevelKeys's highest bit.
  static constexpr std::size_t kFirstLevelKeys = 64;
  static constexpr std::size_t kNumLevels = 32;

  struct Place {
    std::size_t level;
    std::size_t offset;
    std::size_t num_left;  // keys from here to the end of the level
  };
  static Place place_of(std::size_t block) noexcept;

  template <typename Token>
  void extend_checked(std::span<const Token> tokens, Extras extras);
  void check_range(std::size_t start, std::size_t stop) const;
  void stage();                                  // needs hash_mutex_; hands the whole pending blocks over to the hasher
  void hash_staged(std::size_t stop);            // needs hash_mutex_; stops at `stop` or at the end of what is staged
  Key* make_place(const Place& place);           // needs hash_mutex_
  Key key_at(std::size_t block) const noexcept;  // of a hashed block

  const Key root_;
  const std::size_t tokens_per_block_;
  const int block_shift_;  // log2 of tokens_per_block_
  const std::uint64_t origin_;
  const Source source_;
  std::atomic<std::size_t> num_seen_{0};
  std::atomic<BlockRange> uncounted_{BlockRange{}};
  std::atomic<std::size_t> num_tokens_{0};
  std::atomic<std::size_t> num_hashed_{0};

  std::mutex hash_mutex_;
  TokenBuffer staged_;  // whole blocks, the first of them block num_hashed_
  Extras staged_extras_;
  std::array<std::unique_ptr<Key[]>, kNumLevels> levels_;  // a level is never replaced once it is there

  std::mutex tokens_mutex_;
  TokenBuffer pending_;  // tokens behind the staged ones
  Extras pending_extras_;
};

}  // namespace tiercel
