// What the index hands out to Python, for every file that hands it out, and how a call takes the index's lock: without
// letting go of the GIL when it is free and the work is short; otherwise it releases the GIL first, so that no thread
// holds the one while it waits for the other.
#pragma once

#include <nanobind/nanobind.h>

#include <cstddef>
#include <mutex>
#include <utility>

#include "index/index.hpp"

namespace tiercel::bindings {

inline constexpr std::size_t kBlocksHeld = 1024;  // work on more takes longer than a few microseconds

// Call function(lock) with the mutex locked.
template <typename Function>
auto locked(std::mutex& mutex, bool is_short, Function&& function) {
  if (is_short) {
    std::unique_lock<std::mutex> lock(mutex, std::try_to_lock);
    if (lock.owns_lock()) return function(lock);
  }
  const nanobind::gil_scoped_release release;
  std::unique_lock<std::mutex> lock(mutex);
  return function(lock);
}

// The same for an index; num_blocks says how much work it is.
template <typename Function>
auto locked(Index& index, std::size_t num_blocks, Function&& function) {
  return locked(index.mutex(), num_blocks <= kBlocksHeld, std::forward<Function>(function));
}

// Releases what it holds as `Match` does, but never waits for the lock with the GIL held.
struct MatchHandle {
  Match match;

  explicit MatchHandle(Match&& made) : match(std::move(made)) {}
  MatchHandle(MatchHandle&&) = default;
  ~MatchHandle() { truncate(0); }

  void truncate(std::size_t num_blocks) {
    if (match.slots().size() <= num_blocks) return;
    locked(match.index(), match.slots().size(),
           [&](Index::Lock& lock) { match.index().truncate(lock, match, num_blocks); });
  }
};

}  // namespace tiercel::bindings
