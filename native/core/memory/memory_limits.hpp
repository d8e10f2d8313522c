// How much memory this process may still take, by the machine and by its control group, and giving back what it need
// not keep.
#pragma once

#include <cstdint>
#include <string>

namespace tiercel {

struct MemoryRoom {
  std::uint64_t num_bytes;
  std::string limited_by;  // for messages
};

// The least of what the kernel calls available and what each enclosing memory control group leaves, counting page cache
// that can be dropped as room.
MemoryRoom available_memory();

// Hands what was freed back to the kernel, where the C library would keep it for itself. Milliseconds: not for every
// day.
void return_freed_memory() noexcept;

}  // namespace tiercel
