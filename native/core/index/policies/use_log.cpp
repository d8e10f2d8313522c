#include "index/policies/use_log.hpp"

#include <algorithm>
#include <bit>

namespace tiercel {

// A chunk that is not a level's youngest is sparse only if it and a neighbour hold more than half a chunk, so there are
// at most live / kSparse + 2 a level.
UseLog::UseLog(const TierView& tier) : tier_(tier), chunks_(tier.num_runs / (kSparse / 2) + 4 * (kPriorityMax + 1)) {
  youngest_.fill(kNoPlace);
}

UseLog::ChunkId UseLog::new_chunk(std::uint32_t level) {
  if (unused_.empty()) unused_.push_back(num_chunks_seen_++);
  const ChunkId id = unused_.back();
  unused_.pop_back();
  Chunk& chunk = chunks_[id];
  chunk.live.fill(0);
  chunk.shared.fill(0);
  chunk.num_used = 0;
  chunk.num_live = 0;
  chunk.first_live = kChunkEntries;
  chunk.level = level;
  Level& list = levels_[level];
  chunk.older = list.youngest;
  chunk.younger = kNoChunk;
  (list.youngest == kNoChunk ? list.oldest : chunks_[list.youngest].younger) = id;
  list.youngest = id;
  return id;
}

void UseLog::free_chunk(ChunkId id) noexcept {
  const Chunk& chunk = chunks_[id];
  Level& list = levels_[chunk.level];
  (chunk.older == kNoChunk ? list.oldest : chunks_[chunk.older].younger) = chunk.younger;
  (chunk.younger == kNoChunk ? list.youngest : chunks_[chunk.younger].older) = chunk.older;
  unused_.push_back(id);
}

void UseLog::append(RunId run) {
  const std::uint32_t level = tier_.runs[run].priority;
  ChunkId id = levels_[level].youngest;
  if (id == kNoChunk || chunks_[id].num_used == kChunkEntries) {
    const ChunkId full = id;
    id = new_chunk(level);
    if (full != kNoChunk) settle(full);
  }
  Chunk& chunk = chunks_[id];
  const std::uint32_t at = chunk.num_used++;
  chunk.first_live = std::min(chunk.first_live, at);
  chunk.runs[at] = run;
  chunk.live[at / 64] |= std::uint64_t{1} << (at % 64);
  ++chunk.num_live;
  place_of(run) = youngest_[level] = id * kChunkEntries + at;
}

void UseLog::share(RunId head, RunId tail) noexcept {
  const Place place = place_of(tail);
  const std::uint32_t at = place % kChunkEntries;
  place_of(head) = place;
  chunks_[place / kChunkEntries].shared[at / 64] |= std::uint64_t{1} << (at % 64);
}

void UseLog::clear() {
  for (std::size_t level = 0; level <= kPriorityMax; ++level) {
    while (levels_[level].oldest != kNoChunk) free_chunk(levels_[level].oldest);
    youngest_[level] = kNoPlace;
  }
  passed_ = {};
}

// Free an empty chunk, or merge a sparse one with a neighbour.
void UseLog::settle(ChunkId id) {
  if (passed_.run != kNoRun) return;
  const Chunk& chunk = chunks_[id];
  if (chunk.younger == kNoChunk) return;  // being written
  if (chunk.num_live == 0) return free_chunk(id);
  if (chunk.num_live >= kSparse) return;
  if (try_merge(id) || chunk.older == kNoChunk) return;
  try_merge(chunk.older);
}

bool UseLog::try_merge(ChunkId older) {
  Chunk& target = chunks_[older];
  const ChunkId younger = target.younger;
  if (younger == kNoChunk || chunks_[younger].younger == kNoChunk) return false;
  if (target.num_live + chunks_[younger].num_live > kChunkEntries / 2) return false;
  const ChunkId rest = older;
  target.num_used = 0;
  move_entries(target, rest, older);
  move_entries(target, rest, younger);
  target.first_live = target.num_live == 0 ? kChunkEntries : 0;
  free_chunk(younger);
  return true;
}

// Append the living entries of `source` to `target`; the two may be one, with num_used set to 0.
void UseLog::move_entries(Chunk& target, ChunkId target_id, ChunkId source_id) noexcept {
  Chunk& source = chunks_[source_id];
  const auto live = source.live;
  const auto shared = source.shared;
  source.live.fill(0);
  source.shared.fill(0);
  if (target_id != source_id) target.num_live += source.num_live;
  for (std::uint32_t word = 0; word < live.size(); ++word) {
    for (std::uint64_t bits = live[word]; bits != 0; bits &= bits - 1) {
      const std::uint32_t at = word * 64 + static_cast<std::uint32_t>(std::countr_zero(bits));
      const std::uint32_t to = target.num_used++;
      const Place old_place = source_id * kChunkEntries + at;
      const Place new_place = target_id * kChunkEntries + to;
      const RunId run = source.runs[at];
      target.runs[to] = run;
      target.live[to / 64] |= std::uint64_t{1} << (to % 64);
      place_of(run) = new_place;
      if (!test(shared, at)) continue;
      target.shared[to / 64] |= std::uint64_t{1} << (to % 64);
      for (RunId head = tier_.runs[run].parent; shares(head, old_place); head = tier_.runs[head].parent) {
        place_of(head) = new_place;
      }
    }
  }
}

UseLog::Place UseLog::first_from_level(std::size_t level) const {
  for (; level <= kPriorityMax; ++level) {
    for (ChunkId id = levels_[level].oldest; id != kNoChunk; id = chunks_[id].younger) {
      const std::uint32_t at = chunks_[id].first_live;
      if (at != kChunkEntries) return id * kChunkEntries + at;
    }
  }
  return kNoPlace;
}

UseLog::Place UseLog::first_behind(Place place) const {
  ChunkId id = place / kChunkEntries;
  std::uint32_t at = place % kChunkEntries + 1;
  const std::size_t level = chunks_[id].level;
  for (; id != kNoChunk; id = chunks_[id].younger, at = 0) {
    const std::uint32_t found = next_live(chunks_[id], at);
    if (found != kChunkEntries) return id * kChunkEntries + found;
  }
  return first_from_level(level + 1);
}

UseLog::Cursor UseLog::behind(Cursor cursor) const {
  if (cursor.run == kNoRun) return at(first_from_level(0));
  const Place place = cursor.place;
  if (test(chunks_[place / kChunkEntries].shared, place % kChunkEntries)) {
    const RunId parent = tier_.runs[cursor.run].parent;
    if (shares(parent, place)) return {parent, place};
  }
  return at(first_behind(place));
}

void UseLog::offer_again() {
  if (passed_.run == kNoRun) return;
  bool is_behind = false;  // behind the last run passed over
  const ChunkId last = passed_.place / kChunkEntries;
  passed_ = {};
  // What was not merged while a run was passed over: up to the first chunk that nobody has come to.
  for (const Level& level : levels_) {
    for (ChunkId id = level.oldest; id != kNoChunk;) {
      if (is_behind && chunks_[id].num_live >= kSparse) return;
      const ChunkId younger = chunks_[id].younger;
      is_behind = is_behind || id == last;
      if (chunks_[id].num_live == 0 && younger != kNoChunk) {
        free_chunk(id);
      } else if (try_merge(id)) {
        is_behind = is_behind || younger == last;
        continue;
      }
      id = younger;
    }
  }
}

std::size_t UseLog::peek(std::span<RunId> runs) const {
  std::size_t num_runs = 0;
  for (Cursor next = behind(passed_); next.run != kNoRun && num_runs < runs.size(); next = behind(next)) {
    const Place place = next.place;
    // Entry by entry as long as each is one run's, which most are.
    const Chunk& chunk = chunks_[place / kChunkEntries];
    std::uint32_t at = place % kChunkEntries;
    runs[num_runs++] = next.run;
    if (test(chunk.shared, at)) continue;
    for (std::uint32_t behind_it = next_live(chunk, at + 1); behind_it != kChunkEntries;
         behind_it = next_live(chunk, at + 1)) {
      if (num_runs == runs.size() || test(chunk.shared, behind_it)) break;
      at = behind_it;
      runs[num_runs++] = chunk.runs[at];
    }
    next = {chunk.runs[at], place - place % kChunkEntries + at};
  }
  return num_runs;
}

std::vector<RunId> UseLog::order() const {
  std::vector<RunId> runs;
  for (Cursor next = behind({}); next.run != kNoRun; next = behind(next)) runs.push_back(next.run);
  return runs;
}

}  // namespace tiercel
