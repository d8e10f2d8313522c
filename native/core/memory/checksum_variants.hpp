// XXH3 in wider vectors than the baseline's. Each is compiled for its own instruction set, which the caller checks.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__x86_64__)
#define TIERCEL_CHECKSUM_VARIANTS 1

namespace tiercel {

std::uint64_t checksum_avx2(const void* data, std::size_t num_bytes, std::uint64_t seed) noexcept;
std::uint64_t checksum_avx512(const void* data, std::size_t num_bytes, std::uint64_t seed) noexcept;

}  // namespace tiercel
#endif
