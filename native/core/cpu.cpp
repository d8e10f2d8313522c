#include "cpu.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace tiercel {
namespace {

#if defined(__x86_64__)
bool has_sha_ni() noexcept {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  // __builtin_cpu_supports does not know "sha" in every compiler that we build with.
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (ebx & (1u << 29)) != 0 &&
         __builtin_cpu_supports("sse4.1") != 0;
}

CpuFeatures detect() noexcept {
  return {.sha_ni = has_sha_ni(),
          .avx2 = __builtin_cpu_supports("avx2") != 0,
          .avx512f = __builtin_cpu_supports("avx512f") != 0};
}
#else
CpuFeatures detect() noexcept { return {.sha_ni = false, .avx2 = false, .avx512f = false}; }
#endif

}  // namespace

const CpuFeatures& cpu_features() noexcept {
  static const CpuFeatures features = detect();
  return features;
}

}  // namespace tiercel
