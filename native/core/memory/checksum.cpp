#include "memory/checksum.hpp"

#include "cpu.hpp"
#include "memory/checksum_variants.hpp"

// XXH_INLINE_ALL makes everything in the header static, so each variant's file has its own copy.
#define XXH_INLINE_ALL
#include "xxhash/xxhash.h"

namespace tiercel {
namespace {

std::uint64_t checksum_baseline(const void* data, std::size_t num_bytes, std::uint64_t seed) noexcept {
  return XXH3_64bits_withSeed(data, num_bytes, seed);
}

using Variant = std::uint64_t (*)(const void*, std::size_t, std::uint64_t) noexcept;

Variant choose_variant() noexcept {
#ifdef TIERCEL_CHECKSUM_VARIANTS
  if (cpu_features().avx512f) return &checksum_avx512;
  if (cpu_features().avx2) return &checksum_avx2;
#endif
  return &checksum_baseline;
}

}  // namespace

std::uint64_t checksum(std::span<const std::byte> data, std::uint64_t seed) noexcept {
  static const Variant variant = choose_variant();
  return variant(data.data(), data.size(), seed);
}

}  // namespace tiercel
