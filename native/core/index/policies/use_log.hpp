// The order of use as a log: one list of runs, oldest first, a list a priority. Using a run writes a new entry at the
// young end and kills the old one, so the oldest entries lie side by side in memory and can be read far ahead; a linked
// list makes one wait for each. Chunks of entries carry a bit an entry for what is alive; a chunk that grows sparse is
// merged with its neighbour, at a bounded cost for each entry ever written.
//
// A split puts the head directly behind its tail, where there is no entry to write to: it shares the tail's, and takes
// it over when the tail leaves.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "index/policy.hpp"

namespace tiercel {

class UseLog {
 public:
  explicit UseLog(const TierView& tier);

  // The run is the youngest of its priority.
  void append(RunId run);
  void use(RunId run) {
    if (place_of(run) == youngest_[tier_.runs[run].priority] && run_at(place_of(run)) == run) return;
    erase(run);
    append(run);
  }
  void remove(RunId run) { erase(run); }
  void share(RunId head, RunId tail) noexcept;
  // The run's priority rose.
  void raise(RunId run) {
    erase(run);
    append(run);
  }
  void clear();

  RunId oldest() const {
    const ChunkId first = levels_[0].oldest;
    if (passed_.run != kNoRun || first == kNoChunk || chunks_[first].num_live == 0) return behind(passed_).run;
    return chunks_[first].runs[chunks_[first].first_live];
  }
  void pass_over(RunId run) noexcept { passed_ = {run, place_of(run)}; }
  void offer_again();
  std::size_t peek(std::span<RunId> runs) const;
  std::vector<RunId> order() const;

  std::size_t num_bytes() const noexcept {
    return num_chunks_seen_ * sizeof(Chunk) + unused_.capacity() * sizeof(ChunkId);
  }

 private:
  using Place = std::uint32_t;  // chunk number * kChunkEntries + entry
  using ChunkId = std::uint32_t;
  static constexpr std::uint32_t kChunkEntries = 512;
  static constexpr std::uint32_t kSparse = kChunkEntries / 4;
  static constexpr ChunkId kNoChunk = ~ChunkId{0};
  static constexpr Place kNoPlace = ~Place{0};

  struct Chunk {
    std::array<RunId, kChunkEntries> runs;
    std::array<std::uint64_t, kChunkEntries / 64> live;
    std::array<std::uint64_t, kChunkEntries / 64> shared;
    std::uint32_t num_used;
    std::uint32_t num_live;
    std::uint32_t first_live;  // kChunkEntries if none is
    ChunkId older;
    ChunkId younger;
    std::uint32_t level;
  };
  struct Level {
    ChunkId oldest = kNoChunk;
    ChunkId youngest = kNoChunk;
  };
  // A run in the order; kNoRun is before the first and behind the last.
  struct Cursor {
    RunId run = kNoRun;
    Place place = kNoPlace;
  };

  Place& place_of(RunId run) const noexcept { return tier_.held[run].policy_word; }
  RunId run_at(Place place) const noexcept { return chunks_[place / kChunkEntries].runs[place % kChunkEntries]; }
  static bool test(const std::array<std::uint64_t, kChunkEntries / 64>& bits, std::uint32_t at) noexcept {
    return (bits[at / 64] >> (at % 64) & 1) != 0;
  }
  // The first living entry from `at` on, or kChunkEntries.
  static std::uint32_t next_live(const Chunk& chunk, std::uint32_t at) noexcept {
    if (at >= kChunkEntries) return kChunkEntries;
    std::uint32_t word = at / 64;
    std::uint64_t bits = chunk.live[word] >> (at % 64) << (at % 64);
    while (bits == 0) {
      if (++word == chunk.live.size()) return kChunkEntries;
      bits = chunk.live[word];
    }
    return word * 64 + static_cast<std::uint32_t>(std::countr_zero(bits));
  }
  Cursor at(Place place) const noexcept { return place == kNoPlace ? Cursor{} : Cursor{run_at(place), place}; }
  Cursor behind(Cursor cursor) const;
  bool shares(RunId run, Place place) const noexcept { return run != kNoRun && place_of(run) == place; }
  Place first_behind(Place place) const;
  Place first_from_level(std::size_t level) const;
  // Take the run's own entry away. What shared it takes it over.
  void erase(RunId run) {
    const Place place = place_of(run);
    Chunk& chunk = chunks_[place / kChunkEntries];
    const std::uint32_t at = place % kChunkEntries;
    if (chunk.runs[at] != run || !test(chunk.live, at)) return;
    if (test(chunk.shared, at)) {
      const RunId parent = tier_.runs[run].parent;
      if (shares(parent, place)) {
        chunk.runs[at] = parent;
        return;
      }
    }
    chunk.live[at / 64] &= ~(std::uint64_t{1} << (at % 64));
    --chunk.num_live;
    if (at == chunk.first_live) chunk.first_live = next_live(chunk, at + 1);
    if (chunk.num_live < kSparse) settle(place / kChunkEntries);
  }
  ChunkId new_chunk(std::uint32_t level);
  void free_chunk(ChunkId id) noexcept;
  bool try_merge(ChunkId older);
  void settle(ChunkId id);
  void move_entries(Chunk& target, ChunkId target_id, ChunkId source_id) noexcept;

  const TierView tier_;
  LazyArray<Chunk> chunks_;
  std::array<Level, kPriorityMax + 1> levels_{};
  std::array<Place, kPriorityMax + 1> youngest_;
  std::vector<ChunkId> unused_;
  Cursor passed_;  // the last run passed over; nothing is merged while there is one, so its place holds
  ChunkId num_chunks_seen_ = 0;
};

}  // namespace tiercel
