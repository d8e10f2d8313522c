// The checksum that every stored block carries: 64-bit XXH3, in the widest vectors that this processor has.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace tiercel {

// The same value on every machine, whatever path computes it.
std::uint64_t checksum(std::span<const std::byte> data, std::uint64_t seed) noexcept;

}  // namespace tiercel
