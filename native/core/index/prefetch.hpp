// Fetching ahead of use.
#pragma once

namespace tiercel {

// Have the cache line on its way, to be written to.
inline void prefetch(const void* address) noexcept {
  __builtin_prefetch(address, 1);
  // Without this GCC takes a function that does nothing else for one without effect, and drops the calls of it.
  __asm__ __volatile__("");
}

}  // namespace tiercel
