// What the front has to tell the rest of the node, in order. Bounded by the front: it takes no message from a
// connection whose messages nobody took, and no connection while those that left were not noted; `looked` events beyond
// the limit are dropped and counted. Everything here is called with the front's lock held.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "hashing/sequence.hpp"
#include "node/wire.hpp"

namespace tiercel::node {

struct FrontEvent {
  enum class Kind : std::uint8_t { kConnected, kMessage, kLeft, kLooked, kRead };
  Kind kind = Kind::kConnected;
  std::uint64_t connection = 0;
  std::int64_t process = 0;  // kConnected
  std::string text{};        // kMessage: its body; kLeft: why
  std::uint64_t client = 0;  // kLooked and kRead, as what it took and the sequence
  double seconds = 0.0;
  std::shared_ptr<Sequence> sequence{};
  std::uint32_t first_block = 0;  // kRead, with its number
  std::uint32_t num_blocks = 0;
  std::uint32_t limit_blocks = 0;  // kLooked, with all below
  std::uint32_t matched_blocks = 0;
  std::uint32_t num_pending = 0;
  std::vector<FoundSegment> segments{};
};

class Inbox {
 public:
  using Lock = std::unique_lock<std::mutex>;
  static constexpr std::size_t kTakenMax = 256;                 // at once
  static constexpr std::chrono::milliseconds kLookedDelay{10};  // so that lookups do not wake the node one by one

  explicit Inbox(std::size_t num_looked_max) : num_looked_max_(num_looked_max) {}

  void add(FrontEvent&& event) {
    num_bytes_ += event.text.size();
    events_.push_back(std::move(event));
    is_urgent_ = true;
    should_wake_ = true;
  }

  // What a client did that needs no answer: of kind kLooked or kRead. False: dropped.
  bool add_looked(FrontEvent&& event) {
    if (num_looked_ >= num_looked_max_) return false;
    should_wake_ |= events_.empty();
    ++num_looked_;
    events_.push_back(std::move(event));
    return true;
  }

  // Wake whoever waits, if there is a reason to since the last call; with the lock or just behind it.
  bool take_wake() noexcept { return std::exchange(should_wake_, false); }
  void wake() noexcept { arrived_.notify_one(); }

  // Wait for events until `deadline` and take the first ones; none if nothing came, or when closed.
  std::vector<FrontEvent> wait(Lock& lock, std::chrono::steady_clock::time_point deadline) {
    arrived_.wait_until(lock, deadline, [&] { return !events_.empty() || is_closed_; });
    if (!events_.empty() && !is_urgent_) {
      const auto batched = std::min(deadline, std::chrono::steady_clock::now() + kLookedDelay);
      arrived_.wait_until(lock, batched, [&] { return is_urgent_ || is_closed_; });
    }
    std::vector<FrontEvent> taken;
    taken.reserve(std::min(events_.size(), kTakenMax));
    while (!events_.empty() && taken.size() < kTakenMax) {
      FrontEvent& event = events_.front();
      num_bytes_ -= event.text.size();
      if (event.kind == FrontEvent::Kind::kLooked || event.kind == FrontEvent::Kind::kRead) --num_looked_;
      taken.push_back(std::move(event));
      events_.pop_front();
    }
    is_urgent_ = !events_.empty();
    return taken;
  }

  void close() {
    is_closed_ = true;
    events_.clear();
    num_bytes_ = 0;
    num_looked_ = 0;
    arrived_.notify_all();
  }

  std::size_t num_bytes() const noexcept { return num_bytes_; }

 private:
  const std::size_t num_looked_max_;
  std::condition_variable arrived_;
  std::deque<FrontEvent> events_;
  std::size_t num_bytes_ = 0;
  std::size_t num_looked_ = 0;
  bool is_urgent_ = false;
  bool should_wake_ = false;
  bool is_closed_ = false;
};

}  // namespace tiercel::node
