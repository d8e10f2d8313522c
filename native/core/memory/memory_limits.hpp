// How much memory this process may still take, by the machine and by its control group.
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

}  // namespace tiercel
