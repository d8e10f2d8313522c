// A queue of int32 tokens that grows without clearing the memory it takes and gives it back when it runs empty.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace tiercel {

class TokenBuffer {
 public:
  std::size_t size() const noexcept { return stop_ - start_; }
  std::span<const std::int32_t> tokens() const noexcept { return {data_.get() + start_, size()}; }

  // Append tokens if all of them lie in [0, 2^31); else leave the buffer as it was and return false.
  bool append(std::span<const std::int32_t> tokens);
  bool append(std::span<const std::int64_t> tokens);

  void drop_front(std::size_t num_tokens) noexcept;
  void drop_back(std::size_t num_tokens) noexcept { stop_ -= num_tokens; }

 private:
  template <typename Token>
  bool append_checked(std::span<const Token> tokens);
  void make_room(std::size_t num_tokens);

  std::unique_ptr<std::int32_t[]> data_;
  std::size_t capacity_ = 0;
  std::size_t start_ = 0;
  std::size_t stop_ = 0;
};

}  // namespace tiercel
