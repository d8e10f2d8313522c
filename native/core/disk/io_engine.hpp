// The seam between where blocks lie (BlockFiles) and how their bytes move: io_uring or a pool of threads.
//
// An engine runs a batch of vectored requests and returns when every one has ended; it never gives up on a request that
// the kernel holds, because the kernel may still write to its memory. Requests end in any order. An engine is
// thread-safe: several calls may run at once, each bounded by the queue depth.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace tiercel::disk {

enum class IoDirection : std::uint8_t { kRead, kWrite };

// One vectored transfer between a run of bytes of a file and memory that stays valid until the batch has ended.
struct IoRequest {
  std::uint32_t file = 0;    // index into the descriptors that the engine was made with
  std::uint64_t offset = 0;  // bytes from the file's start
  std::uint64_t bytes = 0;   // sum of the segments' lengths, at most 2^31 - 4096
  std::span<const iovec> segments;
};

// Memory that many requests will point into.
struct IoMemory {
  std::uint64_t address = 0;  // page-aligned
  std::uint64_t bytes = 0;    // whole pages
  std::uint64_t unit_bytes =
      0;  // of what lies in it one behind another, such as slots: few requests cross a unit's end
};

// What the caller does around each request. Both are called on the thread that called `run`, so that checksums are
// computed while other requests are in flight; neither may throw.
class IoObserver {
 public:
  virtual ~IoObserver() = default;
  // The request is about to start; its memory may still be read, no longer changed.
  virtual void before(std::size_t request) noexcept = 0;
  // The request ended with 0 or an errno. A transfer of fewer bytes than asked for is EIO.
  virtual void after(std::size_t request, int error) noexcept = 0;
};

class IoEngine {
 public:
  virtual ~IoEngine() = default;
  // Runs all requests; `before` and `after` are called once for each. EINTR and EAGAIN are retried, a bounded number
  // of times.
  virtual void run(IoDirection direction, std::span<const IoRequest> requests, IoObserver& observer) = 0;

  // Lets the engine prepare memory, once, that requests will point into. It must stay mapped until `forget_memory` has
  // returned or the engine is gone. Both wait for the calls under way. An engine that gains nothing by it does nothing.
  virtual void use_memory(const IoMemory&) {}
  virtual void forget_memory(std::uint64_t /*address*/) {}
  // Why memory is not prepared although the engine would gain by it; empty if there is no such.
  virtual std::string memory_reason() const { return {}; }
  // Pinned by that, now.
  virtual std::uint64_t registered_bytes() const { return 0; }
};

// A transfer that the kernel interrupted or deferred is tried again this many times before its error counts.
inline constexpr int kRetriesMax = 16;

inline bool is_transient(int error) noexcept { return error == EINTR || error == EAGAIN; }

struct EngineLimits {
  std::uint32_t queue_depth = 0;               // requests in flight per call
  std::uint64_t write_bytes_beside_reads = 0;  // in flight per write call while a read call runs; one request at least
};

// A pool of min(queue_depth, 16) threads with preadv and pwritev. Throws std::system_error when no thread can start.
std::unique_ptr<IoEngine> make_thread_engine(std::vector<int> descriptors, const EngineLimits& limits);

// io_uring, or nullptr with the reason why this build or this kernel has none.
std::unique_ptr<IoEngine> make_uring_engine(std::vector<int> descriptors, const EngineLimits& limits,
                                            std::string& reason);

}  // namespace tiercel::disk
