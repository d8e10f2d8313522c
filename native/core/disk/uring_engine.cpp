// The engine over io_uring: a small pool of rings, one borrowed by each call, each with the files registered. Requests
// whose memory lies in one registered buffer name it; those of several segments cannot, and go as vectors.
#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <utility>

#include "io_engine.hpp"
#include "turns.hpp"

#ifdef TIERCEL_HAVE_LIBURING
#include <liburing.h>

#include "uring_buffers.hpp"
#include "uring_ring.hpp"
#endif

namespace tiercel::disk {

#ifndef TIERCEL_HAVE_LIBURING

std::unique_ptr<IoEngine> make_uring_engine(std::vector<int>, const EngineLimits&, std::string& reason) {
  reason = "this build has no io_uring: liburing was not installed when it was compiled";
  return nullptr;
}

#else

namespace {

constexpr std::size_t kRingsMax = 8;
// Requests are handed to the kernel when this much is prepared, so that the device works while checksums are computed.
constexpr std::uint64_t kSubmitBytes = 1 << 20;

// One call's requests on their way through one ring.
class Flight {
 public:
  Flight(Ring& ring, UringBuffers& buffers, const Turns::Call& call, IoDirection direction,
         std::span<const IoRequest> requests, IoObserver& observer)
      : owner_(ring),
        ring_(ring.get()),
        buffers_(buffers),
        call_(call),
        direction_(direction),
        requests_(requests),
        observer_(observer) {
    attempts_.resize(requests.size());
  }

  // Returns 0, or the errno for which the ring must not be used again.
  int run() {
    for (std::size_t done = 0; done < requests_.size();) {
      fill();
      if (ended_.empty() && in_kernel_ > 0) wait();
      reap();
      fill();  // the device first, then the checksum of what has arrived
      if (ended_.empty()) continue;
      const auto [request, error] = ended_.back();
      ended_.pop_back();
      observer_.after(request, error);
      ++done;
    }
    return ring_error_;
  }

 private:
  void fill() {
    std::uint64_t prepared_bytes = 0;
    while (call_.may_start(prepared_.size() + in_kernel_, bytes_in_flight_) &&
           (!retries_.empty() || next_ < requests_.size())) {
      std::size_t number;
      if (!retries_.empty()) {
        number = retries_.back();
        retries_.pop_back();
      } else {
        number = next_++;
        observer_.before(number);
      }
      if (ring_error_ != 0) {
        ended_.emplace_back(number, ring_error_);
        continue;
      }
      prepare(number);
      prepared_bytes += requests_[number].bytes;
      if (prepared_bytes >= kSubmitBytes) {
        submit();
        prepared_bytes = 0;
      }
    }
    submit();
  }

  void prepare(std::size_t number) {
    const IoRequest& request = requests_[number];
    io_uring_sqe* entry = io_uring_get_sqe(ring_);  // never null: the ring has as many entries as may start
    describe(entry, request);
    entry->flags |= IOSQE_FIXED_FILE;
    io_uring_sqe_set_data64(entry, number);
    prepared_.push_back(number);
    bytes_in_flight_ += request.bytes;
  }

  void describe(io_uring_sqe* entry, const IoRequest& request) {
    const auto file = static_cast<int>(request.file);
    const iovec& first = request.segments.front();
    const auto buffer = request.segments.size() == 1 ? buffers_.find(owner_, first) : std::nullopt;
    const auto number = static_cast<int>(buffer.value_or(0));
    const auto bytes = static_cast<unsigned>(first.iov_len);
    const auto count = static_cast<unsigned>(request.segments.size());
    const bool reads = direction_ == IoDirection::kRead;
    if (buffer && reads) {
      io_uring_prep_read_fixed(entry, file, first.iov_base, bytes, request.offset, number);
    } else if (buffer) {
      io_uring_prep_write_fixed(entry, file, first.iov_base, bytes, request.offset, number);
    } else if (reads) {
      io_uring_prep_readv(entry, file, request.segments.data(), count, request.offset);
    } else {
      io_uring_prep_writev(entry, file, request.segments.data(), count, request.offset);
    }
  }

  void submit() {
    for (int attempt = 0; !prepared_.empty() && ring_error_ == 0;) {
      const int taken = io_uring_submit(ring_);
      if (taken > 0) {
        prepared_.erase(prepared_.begin(), prepared_.begin() + taken);
        in_kernel_ += static_cast<std::size_t>(taken);
        continue;
      }
      const int error = taken == 0 ? EAGAIN : -taken;
      if ((is_transient(error) || error == EBUSY) && ++attempt <= kRetriesMax) {
        if (in_kernel_ > 0) wait();  // makes room for the kernel
        reap();
        continue;
      }
      ring_error_ = error;
    }
    if (ring_error_ == 0) return;
    for (const std::size_t number : prepared_) {
      ended_.emplace_back(number, ring_error_);
      bytes_in_flight_ -= requests_[number].bytes;
    }
    prepared_.clear();
  }

  void wait() {
    io_uring_cqe* completion = nullptr;
    // Only a signal interrupts this wait; the kernel holds our memory, so there is nothing else to do than go on.
    while (io_uring_wait_cqe(ring_, &completion) < 0) {
    }
  }

  void reap() {
    io_uring_cqe* completion = nullptr;
    while (io_uring_peek_cqe(ring_, &completion) == 0 && completion != nullptr) {
      const auto number = static_cast<std::size_t>(io_uring_cqe_get_data64(completion));
      const int result = completion->res;
      io_uring_cqe_seen(ring_, completion);
      --in_kernel_;
      bytes_in_flight_ -= requests_[number].bytes;
      if (result < 0 && is_transient(-result) && attempts_[number] < kRetriesMax) {
        ++attempts_[number];
        retries_.push_back(number);
      } else if (result < 0) {
        ended_.emplace_back(number, -result);
      } else {
        ended_.emplace_back(number, static_cast<std::uint64_t>(result) == requests_[number].bytes ? 0 : EIO);
      }
    }
  }

  Ring& owner_;
  io_uring* ring_;
  UringBuffers& buffers_;
  const Turns::Call& call_;
  const IoDirection direction_;
  const std::span<const IoRequest> requests_;
  IoObserver& observer_;
  std::size_t next_ = 0;
  std::size_t in_kernel_ = 0;
  std::uint64_t bytes_in_flight_ = 0;  // prepared or in the kernel
  int ring_error_ = 0;
  std::vector<std::size_t> prepared_;  // in the submission queue, not yet taken by the kernel, oldest first
  std::vector<std::size_t> retries_;
  std::vector<std::pair<std::size_t, int> > ended_;  // request, error; not yet observed
  std::vector<std::uint8_t> attempts_;
};

class UringEngine final : public IoEngine {
 public:
  UringEngine(std::vector<int> descriptors, const EngineLimits& limits, std::unique_ptr<Ring> first)
      : descriptors_(std::move(descriptors)), queue_depth_(limits.queue_depth), turns_(limits) {
    idle_.push_back(std::move(first));
    num_rings_ = 1;
  }

  void run(IoDirection direction, std::span<const IoRequest> requests, IoObserver& observer) override {
    std::unique_ptr<Ring> ring;
    int error = borrow(ring);
    if (ring) {
      const Turns::Call call(turns_, direction);
      error = Flight(*ring, buffers_, call, direction, requests, observer).run();
      give_back(error == 0 ? std::move(ring) : nullptr);
      return;
    }
    for (std::size_t i = 0; i < requests.size(); ++i) {
      observer.before(i);
      observer.after(i, error);
    }
  }

  void use_memory(const IoMemory& memory) override {
    const Standstill still(*this);
    buffers_.add(memory);
  }

  void forget_memory(std::uint64_t address) override {
    const Standstill still(*this);
    buffers_.remove(address, idle_);
  }

  std::string memory_reason() const override { return buffers_.reason(); }
  std::uint64_t registered_bytes() const override { return buffers_.registered_bytes(); }

 private:
  // While one exists no call has a ring, and none gets one. Calls that come later wait behind it.
  class Standstill {
   public:
    explicit Standstill(UringEngine& engine) : engine_(engine), lock_(engine.mutex_) {
      ++engine.num_standstills_;
      engine.returned_.wait(lock_, [&] { return engine.idle_.size() == engine.num_rings_; });
    }
    ~Standstill() {
      --engine_.num_standstills_;
      engine_.returned_.notify_all();
    }
    Standstill(const Standstill&) = delete;
    Standstill& operator=(const Standstill&) = delete;

   private:
    UringEngine& engine_;
    std::unique_lock<std::mutex> lock_;
  };

  // An idle ring, or a new one while there are fewer than kRingsMax; waits for a call to end when neither is to be had.
  int borrow(std::unique_ptr<Ring>& ring) {
    std::unique_lock lock(mutex_);
    for (;;) {
      returned_.wait(lock, [&] { return num_standstills_ == 0; });
      if (!idle_.empty()) {
        ring = std::move(idle_.back());
        idle_.pop_back();
        return 0;
      }
      int error = 0;
      if (num_rings_ < kRingsMax) ring = Ring::create(descriptors_, queue_depth_, error);
      if (ring) {
        ++num_rings_;
        return 0;
      }
      if (num_rings_ == 0) return error;
      returned_.wait(lock);
    }
  }

  void give_back(std::unique_ptr<Ring> ring) {
    {
      const std::lock_guard lock(mutex_);
      if (ring) {
        idle_.push_back(std::move(ring));
      } else {
        --num_rings_;
      }
    }
    returned_.notify_all();  // a call that waits for a ring, or who waits for all of them
  }

  const std::vector<int> descriptors_;
  const std::uint32_t queue_depth_;
  Turns turns_;
  UringBuffers buffers_;
  std::mutex mutex_;
  std::condition_variable returned_;
  std::vector<std::unique_ptr<Ring> > idle_;
  std::size_t num_rings_ = 0;
  std::size_t num_standstills_ = 0;  // under way or waited for
};

}  // namespace

std::unique_ptr<IoEngine> make_uring_engine(std::vector<int> descriptors, const EngineLimits& limits,
                                            std::string& reason) {
  int error = 0;
  std::unique_ptr<Ring> ring = Ring::create(descriptors, limits.queue_depth, error);
  if (!ring) {
    reason = std::string("the kernel refused io_uring (") + std::strerror(error) +
             "); kernel.io_uring_disabled, a container's seccomp profile or RLIMIT_MEMLOCK may forbid it";
    return nullptr;
  }
  return std::make_unique<UringEngine>(std::move(descriptors), limits, std::move(ring));
}

#endif

}  // namespace tiercel::disk
