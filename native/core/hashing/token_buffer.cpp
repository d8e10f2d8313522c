#include "hashing/token_buffer.hpp"

#include <algorithm>
#include <cstring>

namespace tiercel {
namespace {

// Both loops are written so that compilers vectorise them: no early exit, one accumulator for all the forbidden bits.
bool copy_if_valid(std::span<const std::int32_t> tokens, std::int32_t* out) noexcept {
  std::int32_t seen_bits = 0;
  for (const std::int32_t token : tokens) {
    seen_bits |= token;
    *out++ = token;
  }
  return seen_bits >= 0;
}

bool copy_if_valid(std::span<const std::int64_t> tokens, std::int32_t* out) noexcept {
  std::uint64_t seen_bits = 0;
  for (const std::int64_t token : tokens) {
    seen_bits |= static_cast<std::uint64_t>(token);
    *out++ = static_cast<std::int32_t>(token);
  }
  return seen_bits >> 31 == 0;
}

}  // namespace

template <typename Token>
bool TokenBuffer::append_checked(std::span<const Token> tokens) {
  make_room(tokens.size());
  if (!copy_if_valid(tokens, data_.get() + stop_)) return false;
  stop_ += tokens.size();
  return true;
}

bool TokenBuffer::append(std::span<const std::int32_t> tokens) { return append_checked(tokens); }
bool TokenBuffer::append(std::span<const std::int64_t> tokens) { return append_checked(tokens); }

void TokenBuffer::make_room(std::size_t num_tokens) {
  if (capacity_ - stop_ >= num_tokens) return;
  const std::size_t num_kept = size();
  // Doubling only once tokens pile up: the first append, often a whole prompt, is taken as it comes.
  const std::size_t capacity = std::max(num_kept + num_tokens, 2 * num_kept);
  auto data = std::make_unique_for_overwrite<std::int32_t[]>(capacity);
  if (num_kept > 0) std::memcpy(data.get(), data_.get() + start_, num_kept * sizeof(std::int32_t));
  data_ = std::move(data);
  capacity_ = capacity;
  start_ = 0;
  stop_ = num_kept;
}

void TokenBuffer::drop_front(std::size_t num_tokens) noexcept {
  start_ += num_tokens;
  if (start_ < stop_) return;
  constexpr std::size_t kCapacityKept = 4096;  // a buffer this small is kept for the tokens to come
  if (capacity_ > kCapacityKept) {
    data_.reset();
    capacity_ = 0;
  }
  start_ = stop_ = 0;
}

}  // namespace tiercel
