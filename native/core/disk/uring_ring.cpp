#ifdef TIERCEL_HAVE_LIBURING

#include "uring_ring.hpp"

#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace tiercel::disk {
namespace {

// Of linux/io_uring.h since 6.13, which liburing's own copy may not have yet.
constexpr unsigned kRegisterCloneBuffers = 30;
constexpr std::uint32_t kCloneReplaces = 1u << 1;
struct CloneBuffers {
  std::uint32_t source_descriptor;
  std::uint32_t flags;
  std::uint32_t source_offset;
  std::uint32_t target_offset;
  std::uint32_t count;
  std::uint32_t padding[3];
};

}  // namespace

std::unique_ptr<Ring> Ring::create(const std::vector<int>& descriptors, std::uint32_t entries, int& error) {
  auto ring = std::unique_ptr<Ring>(new Ring);
  int status = io_uring_queue_init(entries, &ring->ring_, IORING_SETUP_COOP_TASKRUN);
  if (status == -EINVAL) status = io_uring_queue_init(entries, &ring->ring_, 0);  // kernels before 5.19
  ring->open_ = status == 0;
  if (status == 0 && !descriptors.empty()) {
    status = io_uring_register_files(&ring->ring_, descriptors.data(), static_cast<unsigned>(descriptors.size()));
  }
  error = -status;
  return status == 0 ? std::move(ring) : nullptr;
}

Ring::~Ring() {
  if (!open_) return;
  io_uring_unregister_files(&ring_);  // or the kernel lets go of them only some time after the ring is gone
  if (has_table_) io_uring_unregister_buffers(&ring_);
  io_uring_queue_exit(&ring_);
}

int Ring::make_table() {
  if (has_table_) return 0;
  const int status = io_uring_register_buffers_sparse(&ring_, kBuffersMax);
  if (status != 0) return -status;
  held_.assign(kBuffersMax, 0);
  has_table_ = true;
  return 0;
}

int Ring::register_buffer(std::uint32_t number, const iovec& memory) {
  if (const int error = make_table(); error != 0) return error;
  const int status = io_uring_register_buffers_update_tag(&ring_, number, &memory, nullptr, 1);
  if (status < 0) return -status;
  held_[number] = 1;
  return 0;
}

int Ring::share_buffer(std::uint32_t number, const Ring& source) {
  if (const int error = make_table(); error != 0) return error;
  CloneBuffers clone{static_cast<std::uint32_t>(source.ring_.ring_fd), kCloneReplaces, number, number, 1, {}};
  if (::syscall(SYS_io_uring_register, ring_.ring_fd, kRegisterCloneBuffers, &clone, 1) < 0) return errno;
  held_[number] = 1;
  return 0;
}

void Ring::drop_buffer(std::uint32_t number) noexcept {
  if (!holds_buffer(number)) return;
  const iovec nothing{nullptr, 0};
  io_uring_register_buffers_update_tag(&ring_, number, &nothing, nullptr, 1);
  held_[number] = 0;
}

}  // namespace tiercel::disk

#endif
