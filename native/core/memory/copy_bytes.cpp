#include "memory/copy_bytes.hpp"

#include <algorithm>
#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace tiercel {

#if defined(__x86_64__)

StoreKind choose_store_kind(std::size_t num_bytes_of_call) noexcept {
  constexpr std::size_t kStreamedCall = std::size_t{8} << 20;  // measured: benchmarks/host_copy.py
  return num_bytes_of_call >= kStreamedCall ? StoreKind::kStreaming : StoreKind::kCached;
}

void stream_bytes(std::byte* target, const std::byte* source, std::size_t num_bytes, const std::byte* next) noexcept {
  constexpr std::size_t kLine = 64;
  constexpr std::size_t kAhead = 1024;
  const std::size_t num_head = std::min(-reinterpret_cast<std::uintptr_t>(target) % kLine, num_bytes);
  std::memcpy(target, source, num_head);
  target += num_head;
  source += num_head;
  num_bytes -= num_head;
  for (; num_bytes >= kLine; num_bytes -= kLine, target += kLine, source += kLine) {
    const auto* from = reinterpret_cast<const __m128i*>(source);
    auto* to = reinterpret_cast<__m128i*>(target);
    const std::byte* ahead = num_bytes > kAhead ? source + kAhead : next + (kAhead - num_bytes);
    _mm_prefetch(reinterpret_cast<const char*>(ahead), _MM_HINT_NTA);
    const __m128i first = _mm_loadu_si128(from);
    const __m128i second = _mm_loadu_si128(from + 1);
    const __m128i third = _mm_loadu_si128(from + 2);
    const __m128i fourth = _mm_loadu_si128(from + 3);
    _mm_stream_si128(to, first);
    _mm_stream_si128(to + 1, second);
    _mm_stream_si128(to + 2, third);
    _mm_stream_si128(to + 3, fourth);
  }
  std::memcpy(target, source, num_bytes);
}

void finish_stores(StoreKind kind) noexcept {
  if (kind == StoreKind::kStreaming) _mm_sfence();
}

#else

StoreKind choose_store_kind(std::size_t) noexcept { return StoreKind::kCached; }
void stream_bytes(std::byte* target, const std::byte* source, std::size_t num_bytes, const std::byte*) noexcept {
  std::memcpy(target, source, num_bytes);
}
void finish_stores(StoreKind) noexcept {}

#endif

}  // namespace tiercel
