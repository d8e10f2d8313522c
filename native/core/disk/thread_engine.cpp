// The engine for hosts without io_uring: a fixed pool of threads, each running one preadv or pwritev at a time. The
// calling thread hands out at most queue_depth requests and observes those that ended.
#include <cerrno>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>

#include "io_engine.hpp"
#include "turns.hpp"

namespace tiercel::disk {
namespace {

// What the threads of the pool report to one call of `run`.
struct Batch {
  std::mutex mutex;
  std::condition_variable ended;
  std::vector<std::pair<std::size_t, int>> results;  // request, error; in the order in which they ended
};

struct Task {
  IoDirection direction;
  IoRequest request;
  std::size_t number;
  Batch* batch;
};

int transfer(int descriptor, IoDirection direction, const IoRequest& request) noexcept {
  const auto count = static_cast<int>(request.segments.size());
  const auto offset = static_cast<off_t>(request.offset);
  for (int attempt = 0;; ++attempt) {
    const ssize_t moved = direction == IoDirection::kRead
                              ? ::preadv(descriptor, request.segments.data(), count, offset)
                              : ::pwritev(descriptor, request.segments.data(), count, offset);
    if (moved >= 0) return static_cast<std::uint64_t>(moved) == request.bytes ? 0 : EIO;
    const int error = errno;
    if (!is_transient(error) || attempt >= kRetriesMax) return error;
    std::this_thread::yield();
  }
}

class ThreadEngine final : public IoEngine {
  static constexpr std::uint32_t kReadsAheadMax = 16;

 public:
  ThreadEngine(std::vector<int> descriptors, const EngineLimits& limits)
      : descriptors_(std::move(descriptors)), turns_(limits) {
    const std::uint32_t wanted = std::min<std::uint32_t>(limits.queue_depth, 16);
    for (std::uint32_t i = 0; i < wanted; ++i) {
      try {
        threads_.emplace_back([this] { work(); });
      } catch (const std::system_error&) {
        if (threads_.empty()) throw;
        break;  // fewer threads serve as well, more slowly
      }
    }
  }

  ~ThreadEngine() override {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  void run(IoDirection direction, std::span<const IoRequest> requests, IoObserver& observer) override {
    const Turns::Call call(turns_, direction);
    Batch batch;
    batch.results.reserve(requests.size());
    std::size_t started = 0;
    std::uint64_t bytes_in_flight = 0;
    for (std::size_t ended = 0; ended < requests.size();) {
      while (started < requests.size() && call.may_start(started - ended, bytes_in_flight)) {
        observer.before(started);
        push({direction, requests[started], started, &batch});
        bytes_in_flight += requests[started].bytes;
        ++started;
      }
      std::pair<std::size_t, int> result;
      {
        std::unique_lock lock(batch.mutex);
        batch.ended.wait(lock, [&] { return batch.results.size() > ended; });
        result = batch.results[ended];
      }
      ++ended;
      bytes_in_flight -= requests[result.first].bytes;
      observer.after(result.first, result.second);
    }
  }

 private:
  void push(const Task& task) {
    {
      const std::lock_guard lock(mutex_);
      (task.direction == IoDirection::kRead ? reads_ : writes_).push_back(task);
    }
    wake_.notify_one();
  }

  // Reads go first, but a write that waits lets no more than kReadsAheadMax of them pass. Called under the lock, with a
  // task there.
  Task take() {
    const bool is_read = writes_.empty() || (!reads_.empty() && num_reads_ahead_ < kReadsAheadMax);
    num_reads_ahead_ = is_read && !writes_.empty() ? num_reads_ahead_ + 1 : 0;
    std::deque<Task>& tasks = is_read ? reads_ : writes_;
    const Task task = tasks.front();
    tasks.pop_front();
    return task;
  }

  void work() {
    for (;;) {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return stopping_ || !reads_.empty() || !writes_.empty(); });
      if (reads_.empty() && writes_.empty()) return;
      const Task task = take();
      lock.unlock();
      const int error = transfer(descriptors_[task.request.file], task.direction, task.request);
      // Notified under the lock: the batch lives on the stack of `run` and is gone once its last result is seen.
      const std::lock_guard batch_lock(task.batch->mutex);
      task.batch->results.emplace_back(task.number, error);
      task.batch->ended.notify_one();
    }
  }

  const std::vector<int> descriptors_;
  Turns turns_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Task> reads_;
  std::deque<Task> writes_;
  std::uint32_t num_reads_ahead_ = 0;  // taken since a write has been waiting
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace

std::unique_ptr<IoEngine> make_thread_engine(std::vector<int> descriptors, const EngineLimits& limits) {
  return std::make_unique<ThreadEngine>(std::move(descriptors), limits);
}

}  // namespace tiercel::disk
