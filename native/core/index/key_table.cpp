#include "index/key_table.hpp"

#include <utility>

namespace tiercel {

void KeyTable::place(Shard& shard, Entry entry) noexcept {
  std::size_t at = entry.tag & shard.mask;
  while (shard.entries[at].run != kNoRun) at = (at + 1) & shard.mask;
  shard.entries[at] = entry;
}

void KeyTable::grow(Shard& shard) {
  const std::size_t old_length = shard.entries == nullptr ? 0 : shard.mask + 1;
  const std::size_t length = old_length == 0 ? kFirstEntries : old_length * 2;
  auto old = std::exchange(shard.entries, std::make_unique_for_overwrite<Entry[]>(length));
  shard.mask = length - 1;
  for (std::size_t at = 0; at < length; ++at) shard.entries[at] = {0, kNoRun};
  for (std::size_t at = 0; at < old_length; ++at) {
    if (old[at].run != kNoRun) place(shard, old[at]);
  }
  num_bytes_ += (length - old_length) * sizeof(Entry);
}

void KeyTable::insert(const Key& key, RunId run) {
  const std::uint64_t hash = spread(key);
  Shard& shard = shards_[hash >> 56];
  if (shard.entries == nullptr || (shard.num_used + 1) * 4 > (shard.mask + 1) * 3) grow(shard);
  place(shard, {static_cast<std::uint32_t>(hash), run});
  ++shard.num_used;
}

std::size_t KeyTable::position_of(const Shard& shard, std::uint64_t hash, RunId run) const noexcept {
  std::size_t at = static_cast<std::uint32_t>(hash) & shard.mask;
  while (shard.entries[at].run != run) at = (at + 1) & shard.mask;
  return at;
}

void KeyTable::replace(const Key& key, RunId old_run, RunId new_run) {
  const std::uint64_t hash = spread(key);
  Shard& shard = shards_[hash >> 56];
  shard.entries[position_of(shard, hash, old_run)].run = new_run;
}

void KeyTable::erase(const Key& key, RunId run) {
  const std::uint64_t hash = spread(key);
  Shard& shard = shards_[hash >> 56];
  std::size_t hole = position_of(shard, hash, run);
  // Close the hole: move back each later entry of the cluster whose home does not lie behind the hole.
  for (std::size_t at = (hole + 1) & shard.mask; shard.entries[at].run != kNoRun; at = (at + 1) & shard.mask) {
    const std::size_t home = shard.entries[at].tag & shard.mask;
    if (((at - home) & shard.mask) >= ((at - hole) & shard.mask)) {
      shard.entries[hole] = shard.entries[at];
      hole = at;
    }
  }
  shard.entries[hole] = {0, kNoRun};
  --shard.num_used;
}

}  // namespace tiercel
