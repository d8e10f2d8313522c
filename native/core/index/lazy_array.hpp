// A zero-filled array of fixed length whose pages cost memory only once they are touched, so that it can be sized for
// the worst case. Elements never move.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <new>
#include <type_traits>
#include <utility>

namespace tiercel {

template <typename T>
class LazyArray {
  static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>);

 public:
  explicit LazyArray(std::size_t length) {
    if (length == 0) return;
    const std::size_t num_bytes = length * sizeof(T);
    const bool is_large = num_bytes >= kHugePageBytes;
    // Large arrays lie on whole huge pages: random access then misses the TLB far less. Only a hint.
    const std::size_t aligned_bytes = round_up(num_bytes, is_large ? kHugePageBytes : kPageBytes);
    num_mapped_bytes_ = aligned_bytes + (is_large ? kHugePageBytes : 0);
    mapping_ =
        ::mmap(nullptr, num_mapped_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping_ == MAP_FAILED) throw std::bad_alloc();
    auto start = reinterpret_cast<std::uintptr_t>(mapping_);
    if (is_large) start = round_up(start, kHugePageBytes);
    data_ = reinterpret_cast<T*>(start);
    if (is_large) ::madvise(data_, aligned_bytes, MADV_HUGEPAGE);
  }
  ~LazyArray() {
    if (data_ != nullptr) ::munmap(mapping_, num_mapped_bytes_);
  }
  LazyArray(LazyArray&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        mapping_(std::exchange(other.mapping_, nullptr)),
        num_mapped_bytes_(std::exchange(other.num_mapped_bytes_, 0)) {}
  LazyArray& operator=(LazyArray&&) = delete;

  T& operator[](std::size_t position) noexcept { return data_[position]; }
  const T& operator[](std::size_t position) const noexcept { return data_[position]; }

 private:
  static constexpr std::size_t kPageBytes = 4096;
  static constexpr std::size_t kHugePageBytes = std::size_t{2} << 20;

  static constexpr std::size_t round_up(std::size_t value, std::size_t step) noexcept {
    return (value + step - 1) / step * step;
  }

  T* data_ = nullptr;
  void* mapping_ = nullptr;
  std::size_t num_mapped_bytes_ = 0;
};

}  // namespace tiercel
