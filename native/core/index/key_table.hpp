// Where a run begins: first key -> run. Open addressing in 256 shards, so that growing copies a 256th at a time and no
// single insert stalls. Two runs may share a first key (only a corrupt journal makes that happen); the caller's
// predicate tells them apart. Not thread-safe.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "index/types.hpp"
#include "key.hpp"

namespace tiercel {

class KeyTable {
 public:
  // The run under `key` for which matches(run) holds, or kNoRun.
  template <typename Matches>
  RunId find(const Key& key, Matches&& matches) const {
    const std::uint64_t hash = spread(key);
    const Shard& shard = shards_[hash >> 56];
    if (shard.entries == nullptr) return kNoRun;
    const auto tag = static_cast<std::uint32_t>(hash);
    for (std::size_t at = tag & shard.mask;; at = (at + 1) & shard.mask) {
      const Entry& entry = shard.entries[at];
      if (entry.run == kNoRun) return kNoRun;
      if (entry.tag == tag && matches(entry.run)) return entry.run;
    }
  }

  // Fetch what a call with this key will look at first.
  void prefetch(const Key& key) const noexcept {
    const std::uint64_t hash = spread(key);
    const Shard& shard = shards_[hash >> 56];
    if (shard.entries != nullptr) __builtin_prefetch(&shard.entries[static_cast<std::uint32_t>(hash) & shard.mask], 1);
  }

  void insert(const Key& key, RunId run);
  void replace(const Key& key, RunId old_run, RunId new_run);  // old_run must be there
  void erase(const Key& key, RunId run);                       // must be there

  std::size_t num_bytes() const noexcept { return num_bytes_; }

 private:
  struct Entry {
    std::uint32_t tag;
    RunId run;
  };
  struct Shard {
    std::unique_ptr<Entry[]> entries;
    std::size_t mask = 0;
    std::size_t num_used = 0;
  };

  // Keys are hashes already; the multiplication only guards against made-up ones.
  static std::uint64_t spread(const Key& key) noexcept {
    std::uint64_t low;
    std::uint64_t high;
    std::memcpy(&low, key.bytes.data(), sizeof low);
    std::memcpy(&high, key.bytes.data() + sizeof low, sizeof high);
    const std::uint64_t mixed = (low ^ (high * 0x9E3779B97F4A7C15u)) * 0xD6E8FEB86659FD93u;
    return mixed ^ (mixed >> 32);
  }
  static void place(Shard& shard, Entry entry) noexcept;
  std::size_t position_of(const Shard& shard, std::uint64_t hash, RunId run) const noexcept;
  void grow(Shard& shard);

  static constexpr std::size_t kFirstEntries = 16;

  std::array<Shard, 256> shards_;
  std::size_t num_bytes_ = 0;
};

}  // namespace tiercel
