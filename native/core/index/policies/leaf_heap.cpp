#include "index/policies/leaf_heap.hpp"

#include <algorithm>
#include <bit>

namespace tiercel {

Rank make_rank(std::uint8_t priority, double value, std::uint64_t low) noexcept {
  // The bits of doubles that are not negative sort as the doubles do; the sign bit is 0.
  return {std::uint64_t{priority} << 56 | std::bit_cast<std::uint64_t>(value) >> 7, low};
}

void LeafHeap::sift_up(std::size_t at, const Entry& entry) noexcept {
  while (at != 0) {
    const std::size_t parent = (at - 1) / kFanOut;
    if (entries_[parent].rank <= entry.rank) break;
    put(at, entries_[parent]);
    at = parent;
  }
  put(at, entry);
}

void LeafHeap::sift_down(std::size_t at, const Entry& entry) noexcept {
  for (;;) {
    const std::size_t first = at * kFanOut + 1;
    if (first >= size_) break;
    std::size_t least = first;
    for (std::size_t child = first + 1; child < std::min(first + kFanOut, size_); ++child) {
      if (entries_[child].rank < entries_[least].rank) least = child;
    }
    if (entry.rank <= entries_[least].rank) break;
    put(at, entries_[least]);
    at = least;
  }
  put(at, entry);
}

void LeafHeap::push(RunId run, const Rank& rank) {
  num_runs_seen_ = std::max(num_runs_seen_, std::size_t{run} + 1);
  const std::size_t at = size_++;
  size_max_ = std::max(size_max_, size_);
  sift_up(at, {rank, run});
}

void LeafHeap::remove(RunId run) {
  const std::size_t at = places_[run] - 1;
  places_[run] = 0;
  const Entry last = entries_[--size_];
  if (at == size_) return;
  const bool rises = at != 0 && last.rank < entries_[(at - 1) / kFanOut].rank;
  rises ? sift_up(at, last) : sift_down(at, last);
}

void LeafHeap::update(RunId run, const Rank& rank) {
  const std::size_t at = places_[run] - 1;
  const bool rises = rank < entries_[at].rank;
  rises ? sift_up(at, {rank, run}) : sift_down(at, {rank, run});
}

void LeafHeap::clear() {
  for (std::size_t at = 0; at < size_; ++at) places_[entries_[at].run] = 0;
  size_ = 0;
}

std::size_t LeafHeap::peek(std::span<RunId> runs) const {
  std::vector<std::size_t> frontier;
  const auto is_later = [this](std::size_t a, std::size_t b) { return entries_[b].rank < entries_[a].rank; };
  if (size_ != 0) frontier.push_back(0);
  std::size_t num_runs = 0;
  while (num_runs < runs.size() && !frontier.empty()) {
    std::pop_heap(frontier.begin(), frontier.end(), is_later);
    const std::size_t at = frontier.back();
    frontier.pop_back();
    runs[num_runs++] = entries_[at].run;
    for (std::size_t child = at * kFanOut + 1; child < std::min(at * kFanOut + 1 + kFanOut, size_); ++child) {
      frontier.push_back(child);
      std::push_heap(frontier.begin(), frontier.end(), is_later);
    }
  }
  return num_runs;
}

}  // namespace tiercel
