// Splits one call's work over threads that live as long as the call.
#pragma once

#include <algorithm>
#include <cstddef>
#include <stdexcept>
#include <thread>
#include <vector>

namespace tiercel {

// Call work(first, last) over parts of [0, num_units), none of them empty, on the caller's thread and up to num_threads
// - 1 others. No thread is started for less than kBytesPerThread: starting one costs tens of microseconds, in which
// that much is copied.
template <typename Work>
void split_over_threads(std::size_t num_units, std::size_t num_bytes, int num_threads, const Work& work) {
  constexpr std::size_t kBytesPerThread = std::size_t{1} << 20;
  if (num_threads < 1) throw std::invalid_argument("num_threads must be at least 1");
  if (num_units == 0) return;
  const std::size_t num_parts = std::min(
      {static_cast<std::size_t>(num_threads), std::max<std::size_t>(num_bytes / kBytesPerThread, 1), num_units});
  std::vector<std::jthread> others;
  std::size_t first = 0;
  for (std::size_t part = 0; part + 1 < num_parts; ++part) {
    const std::size_t last = num_units / num_parts * (part + 1);
    others.emplace_back([&work, first, last] { work(first, last); });
    first = last;
  }
  work(first, num_units);
}

}  // namespace tiercel
