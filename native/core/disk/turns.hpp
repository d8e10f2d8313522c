// Reads go ahead of writes: while a read is under way, each write call keeps only a few bytes with the device, so that
// a read does not queue behind a whole chunk of writes. A write call always keeps one request going: it never starves.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "io_engine.hpp"

namespace tiercel::disk {

class Turns {
 public:
  explicit Turns(const EngineLimits& limits) : limits_(limits) {}

  // A call of `run` under way.
  class Call {
   public:
    Call(Turns& turns, IoDirection direction) : turns_(turns), direction_(direction) {
      if (direction_ == IoDirection::kRead) turns_.reads_.fetch_add(1, std::memory_order_relaxed);
    }
    ~Call() {
      if (direction_ == IoDirection::kRead) turns_.reads_.fetch_sub(1, std::memory_order_relaxed);
    }
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;

    // Whether one more request may start while so much of this call is in flight.
    bool may_start(std::size_t requests, std::uint64_t bytes) const noexcept {
      if (requests == 0) return true;
      if (requests >= turns_.limits_.queue_depth) return false;
      return direction_ == IoDirection::kRead || bytes < turns_.limits_.write_bytes_beside_reads ||
             turns_.reads_.load(std::memory_order_relaxed) == 0;
    }

   private:
    Turns& turns_;
    const IoDirection direction_;
  };

 private:
  const EngineLimits limits_;
  std::atomic<std::uint32_t> reads_{0};  // read calls under way
};

}  // namespace tiercel::disk
