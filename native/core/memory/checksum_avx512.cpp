// Compiled with -mavx512f (CMakeLists.txt). Nothing but xxhash.h may be included here: an inline function of another
// header, compiled for this instruction set, could be the copy that the linker keeps for everyone.
#include "memory/checksum_variants.hpp"

#ifdef TIERCEL_CHECKSUM_VARIANTS
#define XXH_INLINE_ALL
#include "xxhash/xxhash.h"

namespace tiercel {

std::uint64_t checksum_avx512(const void* data, std::size_t num_bytes, std::uint64_t seed) noexcept {
  return XXH3_64bits_withSeed(data, num_bytes, seed);
}

}  // namespace tiercel
#endif
