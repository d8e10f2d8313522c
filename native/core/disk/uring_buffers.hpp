// Memory that requests point into again and again, registered with the rings piece by piece.
//
// The kernel pins the pages of a plain request each time; those of a registered buffer once. A piece is registered when
// a request first needs it, so that opening costs nothing and memory that no transfer uses is neither pinned nor made
// resident; that takes about as long as one plain transfer of the piece. Rings share what is registered where the
// kernel can (Linux 6.13); elsewhere each ring registers for itself.
//
// What cannot be registered is transferred as before, and `reason` says why.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "io_engine.hpp"
#include "uring_ring.hpp"

namespace tiercel::disk {

// Threads: `find`, `reason` and `registered_bytes` may be called at once, `find` with a ring that only its caller uses.
// The others need every ring to be idle.
class UringBuffers {
 public:
  // shares: let rings share what is registered, where the kernel can.
  explicit UringBuffers(bool shares = true) : shares_(shares) {}

  void add(const IoMemory& memory);
  // Lets go of the memory in all of the given rings, which are those in which `find` was called.
  void remove(std::uint64_t address, const std::vector<std::unique_ptr<Ring>>& rings);

  // The number under which the ring holds the memory of a segment, registering it first if need be; nothing if it lies
  // in none of the pieces, or not in a single one, or cannot be registered.
  std::optional<std::uint32_t> find(Ring& ring, const iovec& segment);

  // Why memory that was added is not registered; empty as long as all of it could be.
  std::string reason() const;
  // Pinned so far, by whichever ring.
  std::uint64_t registered_bytes() const noexcept { return registered_bytes_.load(std::memory_order_relaxed); }

 private:
  struct Region {
    IoMemory memory;
    std::uint64_t piece_bytes = 0;
    std::uint32_t first = 0;  // number of its first piece
    std::uint32_t count = 0;  // pieces
    std::atomic<bool> refused{false};
  };

  static iovec memory_of(const Region& region, std::uint32_t piece);
  bool provide(Ring& ring, Region& region, std::uint32_t piece);
  int register_piece(Ring& ring, std::uint32_t number, const iovec& memory);
  std::optional<std::uint32_t> free_numbers(std::uint32_t count) const;

  mutable std::mutex mutex_;
  std::vector<std::unique_ptr<Region>> regions_;  // by number; changed only while every ring is idle
  std::unique_ptr<Ring> holder_;                  // what the other rings share from
  bool shares_;
  std::string reason_;
  std::atomic<std::uint64_t> registered_bytes_{0};
};

}  // namespace tiercel::disk
