// One ring of io_uring: its queue, the registered files, and a table of registered buffers. Used by the io_uring engine
// alone, and only where liburing is there.
#pragma once

#include <liburing.h>
#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace tiercel::disk {

// Buffers that a ring can hold. The table takes eight bytes each in the kernel.
inline constexpr std::uint32_t kBuffersMax = 4096;

// Threads: one at a time. Errors are errno values, 0 for none.
class Ring {
 public:
  // Returns nullptr with the kernel's errno in `error`.
  static std::unique_ptr<Ring> create(const std::vector<int>& descriptors, std::uint32_t entries, int& error);
  ~Ring();
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  io_uring* get() noexcept { return &ring_; }

  bool holds_buffer(std::uint32_t number) const noexcept { return has_table_ && held_[number] != 0; }
  // Pins the memory and keeps it ready for requests that name this number.
  int register_buffer(std::uint32_t number, const iovec& memory);
  // Takes over what another ring holds under this number; both share the pages' description. EINVAL: before Linux 6.13.
  int share_buffer(std::uint32_t number, const Ring& source);
  // Lets go of the memory. No request that names the number may be under way.
  void drop_buffer(std::uint32_t number) noexcept;

 private:
  Ring() = default;
  int make_table();

  io_uring ring_{};
  bool open_ = false;
  bool has_table_ = false;
  std::vector<std::uint8_t> held_;  // by number
};

}  // namespace tiercel::disk
