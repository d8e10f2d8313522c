// A zero-filled array of fixed length whose pages cost memory only once they are touched, so that it can be sized for
// the worst case. Elements never move.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <new>
#include <type_traits>
#include <utility>

namespace tiercel {

template <typename T>
class LazyArray {
  static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>);

 public:
  explicit LazyArray(std::size_t length) : num_bytes_(length * sizeof(T)) {
    if (length == 0) return;
    void* memory =
        ::mmap(nullptr, num_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    // Random access to a large array misses the TLB less. Only a hint; small arrays stay small.
    if (num_bytes_ >= kHugeFromBytes) ::madvise(memory, num_bytes_, MADV_HUGEPAGE);
    data_ = static_cast<T*>(memory);
  }
  ~LazyArray() {
    if (data_ != nullptr) ::munmap(data_, num_bytes_);
  }
  LazyArray(LazyArray&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), num_bytes_(std::exchange(other.num_bytes_, 0)) {}
  LazyArray& operator=(LazyArray&&) = delete;

  T& operator[](std::size_t position) noexcept { return data_[position]; }
  const T& operator[](std::size_t position) const noexcept { return data_[position]; }

 private:
  static constexpr std::size_t kHugeFromBytes = std::size_t{8} << 20;

  T* data_ = nullptr;
  std::size_t num_bytes_ = 0;
};

}  // namespace tiercel
