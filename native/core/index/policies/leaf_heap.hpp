// The runs without children in a tier, by rank: a heap of four children a node in which every run knows its place, so
// that one that is used, trimmed or gone costs O(log leaves).
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "index/policy.hpp"

namespace tiercel {

// The lower leaves first. The top byte of `high` is the priority, the rest is the policy's.
struct Rank {
  std::uint64_t high = 0;
  std::uint64_t low = 0;
  auto operator<=>(const Rank&) const = default;
};

// value >= 0, kept to 45 bits of its fraction; ties go by `low`.
Rank make_rank(std::uint8_t priority, double value, std::uint64_t low) noexcept;

class LeafHeap {
 public:
  explicit LeafHeap(std::size_t num_runs) : entries_(num_runs), places_(num_runs) {}

  bool empty() const noexcept { return size_ == 0; }
  RunId top() const noexcept { return size_ == 0 ? kNoRun : entries_[0].run; }
  const Rank& top_rank() const noexcept { return entries_[0].rank; }
  bool contains(RunId run) const noexcept { return places_[run] != 0; }
  void push(RunId run, const Rank& rank);
  void remove(RunId run);
  void update(RunId run, const Rank& rank);
  void clear();
  // The lowest ones in order; O(runs.size() * log), whatever the size of the heap.
  std::size_t peek(std::span<RunId> runs) const;
  std::size_t num_bytes() const noexcept { return size_max_ * sizeof(Entry) + num_runs_seen_ * sizeof(std::uint32_t); }

 private:
  struct Entry {
    Rank rank;
    RunId run;
  };
  static constexpr std::size_t kFanOut = 4;

  void put(std::size_t at, const Entry& entry) noexcept {
    entries_[at] = entry;
    places_[entry.run] = static_cast<std::uint32_t>(at) + 1;
  }
  void sift_up(std::size_t at, const Entry& entry) noexcept;
  void sift_down(std::size_t at, const Entry& entry) noexcept;

  LazyArray<Entry> entries_;
  LazyArray<std::uint32_t> places_;  // by run: place in entries_ + 1, or 0
  std::size_t size_ = 0;
  std::size_t size_max_ = 0;
  std::size_t num_runs_seen_ = 0;
};

}  // namespace tiercel
