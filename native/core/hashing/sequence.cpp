#include "hashing/sequence.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <utility>

#include "hashing/chain.hpp"

namespace tiercel {

Sequence::Sequence(const Key& root, std::size_t tokens_per_block, std::uint64_t origin, Source source)
    : root_(root),
      tokens_per_block_(tokens_per_block),
      block_shift_(std::countr_zero(tokens_per_block)),
      origin_(origin),
      source_(source) {
  if (!std::has_single_bit(tokens_per_block) || tokens_per_block > kTokensPerBlockMax) {
    throw std::invalid_argument("tokens_per_block must be a power of two up to " + std::to_string(kTokensPerBlockMax) +
                                ", not " + std::to_string(tokens_per_block));
  }
}

void Sequence::extend(std::span<const std::int32_t> tokens, Extras extras) {
  extend_checked(tokens, std::move(extras));
}
void Sequence::extend(std::span<const std::int64_t> tokens, Extras extras) {
  extend_checked(tokens, std::move(extras));
}

template <typename Token>
void Sequence::extend_checked(std::span<const Token> tokens, Extras extras) {
  if (source_ == Source::kKeys) throw std::invalid_argument("a sequence of keys takes no tokens");
  const std::lock_guard lock(tokens_mutex_);
  const std::size_t num_before = num_tokens();
  for (const auto& [block, bytes] : extras) {
    const std::string name = "extras of block " + std::to_string(block);
    if (block < (num_before + tokens_per_block_ - 1) >> block_shift_) {
      throw std::invalid_argument(name + " come too late: it has tokens already");
    }
    if (pending_extras_.contains(block)) throw std::invalid_argument(name + " were given before");
    if (bytes.size() > std::numeric_limits<std::uint32_t>::max()) {
      throw std::invalid_argument(name + " are longer than 2^32 - 1 bytes");
    }
  }
  if (!pending_.append(tokens)) throw std::invalid_argument("tokens must lie in [0, 2^31)");
  pending_extras_.merge(extras);
  num_tokens_.store(num_before + tokens.size(), std::memory_order_release);
}

void Sequence::append_keys(std::span<const Key> keys) {
  if (source_ == Source::kTokens) throw std::invalid_argument("a sequence of tokens takes no keys");
  const std::lock_guard lock(hash_mutex_);
  std::size_t stop = num_hashed_blocks();
  while (!keys.empty()) {
    const Place place = place_of(stop);
    const std::span<const Key> part = keys.first(std::min(keys.size(), place.num_left));
    std::memcpy(make_place(place), part.data(), part.size_bytes());
    keys = keys.subspan(part.size());
    stop += part.size();
  }
  // In this order: what lies before num_tokens counts as there to be hashed.
  num_hashed_.store(stop, std::memory_order_release);
  num_tokens_.store(stop << block_shift_, std::memory_order_release);
}

void Sequence::hash_to(std::size_t stop) {
  if (stop <= num_hashed_blocks()) return;
  check_range(0, stop);
  const std::lock_guard lock(hash_mutex_);
  while (num_hashed_blocks() < stop) {
    if (staged_.size() == 0) stage();
    hash_staged(stop);
  }
}

void Sequence::copy_keys(std::size_t start, std::size_t stop, Key* out) {
  check_range(start, stop);
  hash_to(stop);
  while (start < stop) {
    const Place place = place_of(start);
    const std::size_t num_keys = std::min(stop - start, place.num_left);
    std::memcpy(out, levels_[place.level].get() + place.offset, num_keys * sizeof(Key));
    out += num_keys;
    start += num_keys;
  }
}

std::span<const Key> Sequence::stable_keys(std::size_t start, std::size_t stop) {
  check_range(start, stop);
  if (start == stop) return {};
  const Place place = place_of(start);
  const std::size_t num_keys = std::min(stop - start, place.num_left);
  hash_to(start + num_keys);
  return {levels_[place.level].get() + place.offset, num_keys};
}

std::size_t Sequence::note_seen(std::size_t stop) noexcept {
  std::size_t before = num_seen_.load(std::memory_order_relaxed);
  while (before < stop && !num_seen_.compare_exchange_weak(before, stop, std::memory_order_relaxed)) {
  }
  return before;
}

Key Sequence::parent_key(std::size_t block) {
  check_range(0, block);
  hash_to(block);
  return block == 0 ? root_ : key_at(block - 1);
}

Sequence::Place Sequence::place_of(std::size_t block) noexcept {
  const std::size_t shifted = block + kFirstLevelKeys;
  const std::size_t size = std::bit_floor(shifted);
  const auto level = static_cast<std::size_t>(std::countr_zero(size) - std::countr_zero(kFirstLevelKeys));
  return {.level = level, .offset = shifted - size, .num_left = 2 * size - shifted};
}

void Sequence::check_range(std::size_t start, std::size_t stop) const {
  if (start <= stop && stop <= num_blocks()) return;
  throw std::invalid_argument("blocks [" + std::to_string(start) + ", " + std::to_string(stop) +
                              ") do not lie in [0, " + std::to_string(num_blocks()) + ")");
}

void Sequence::stage() {
  const std::lock_guard lock(tokens_mutex_);
  const std::size_t num_tail = pending_.size() & (tokens_per_block_ - 1);
  staged_.append(pending_.tokens().last(num_tail));
  pending_.drop_back(num_tail);
  std::swap(staged_, pending_);
  const std::size_t stop = num_hashed_blocks() + (staged_.size() >> block_shift_);
  while (!pending_extras_.empty() && pending_extras_.begin()->first < stop) {
    staged_extras_.insert(pending_extras_.extract(pending_extras_.begin()));
  }
}

void Sequence::hash_staged(std::size_t stop) {
  std::size_t start = num_hashed_blocks();
  stop = std::min(stop, start + (staged_.size() >> block_shift_));
  while (start < stop) {
    const Place place = place_of(start);
    Key* out = make_place(place);
    const Key parent = start == 0 ? root_ : key_at(start - 1);
    const std::size_t next_extras = staged_extras_.empty() ? stop : staged_extras_.begin()->first;
    std::size_t num_blocks = 1;
    if (next_extras == start) {
      const auto extras = staged_extras_.extract(staged_extras_.begin());
      *out = chain_key(parent, staged_.tokens().first(tokens_per_block_), std::as_bytes(std::span(extras.mapped())));
    } else {
      num_blocks = std::min({stop, next_extras, start + place.num_left}) - start;
      chain_keys(parent, staged_.tokens().first(num_blocks << block_shift_), tokens_per_block_, out);
    }
    staged_.drop_front(num_blocks << block_shift_);
    start += num_blocks;
    num_hashed_.store(start, std::memory_order_release);
  }
}

Key* Sequence::make_place(const Place& place) {
  std::unique_ptr<Key[]>& level = levels_[place.level];
  if (level == nullptr) level = std::make_unique_for_overwrite<Key[]>(kFirstLevelKeys << place.level);
  return level.get() + place.offset;
}

Key Sequence::key_at(std::size_t block) const noexcept {
  const Place place = place_of(block);
  return levels_[place.level][place.offset];
}

}  // namespace tiercel
