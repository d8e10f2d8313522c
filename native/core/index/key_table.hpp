// Where a run begins: first key -> run. Linear hashing with chains through the runs' own records (Litwin, Linear
// Hashing: A New Tool for File and Table Addressing, 1980): an insert adds two buckets, in place, so no single one
// stalls, and all buckets lie together on few pages. Two runs may share a first key (only a corrupt journal makes that
// happen); their parents tell them apart. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "index/lazy_array.hpp"
#include "index/prefetch.hpp"
#include "index/run.hpp"
#include "key.hpp"

namespace tiercel {

class KeyTable {
 public:
  // num_runs: most runs ever in the table. `runs` must outlive it; of these it writes next_in_bucket.
  KeyTable(LazyArray<Run>& runs, std::size_t num_runs);

  // The run below `parent` that begins with `key`, or kNoRun.
  RunId find(RunId parent, const Key& key) const noexcept {
    RunLink link = buckets_[bucket_of(key)];
    while (link != kNoLink && !(runs_[link - 1].parent == parent && runs_[link - 1].first_key == key)) {
      link = runs_[link - 1].next_in_bucket;
    }
    return link - 1;
  }

  // Fetch what erasing the run, whose record is at hand, will look at first, which is returned; and, when that has
  // come, second. In between nothing may be inserted.
  const RunLink* prefetch_bucket(RunId run) const noexcept {
    const RunLink* bucket = &buckets_[bucket_of(runs_[run].first_key)];
    tiercel::prefetch(bucket);
    return bucket;
  }
  void prefetch_chain(RunId run, const RunLink* bucket) const noexcept {
    if (*bucket != kNoLink && *bucket != run + 1) tiercel::prefetch(&runs_[*bucket - 1]);
  }

  void insert(RunId run);                      // by its first key
  void replace(RunId old_run, RunId new_run);  // old_run must be there; both begin with one key
  void erase(RunId run) noexcept {             // must be there
    link_to(run) = runs_[run].next_in_bucket;
    --num_runs_;
  }

  std::size_t num_bytes() const noexcept { return num_buckets_ * sizeof(RunLink); }

 private:
  static constexpr RunLink kNoLink = 0;
  static constexpr std::size_t kFirstBuckets = 16;
  static constexpr std::size_t kBucketsPerRun = 2;

  // Keys are hashes already; the multiplication only guards against made-up ones.
  static std::uint64_t spread(const Key& key) noexcept {
    std::uint64_t low;
    std::uint64_t high;
    std::memcpy(&low, key.bytes.data(), sizeof low);
    std::memcpy(&high, key.bytes.data() + sizeof low, sizeof high);
    const std::uint64_t mixed = (low ^ (high * 0x9E3779B97F4A7C15u)) * 0xD6E8FEB86659FD93u;
    return mixed ^ (mixed >> 32);
  }
  // Buckets from base_ on were split off the one base_ below.
  std::size_t bucket_of(const Key& key) const noexcept {
    const std::size_t bucket = spread(key) & (2 * base_ - 1);
    return bucket < num_buckets_ ? bucket : bucket - base_;
  }
  RunLink& link_to(RunId run) noexcept {
    RunLink* link = &buckets_[bucket_of(runs_[run].first_key)];
    while (*link != run + 1) link = &runs_[*link - 1].next_in_bucket;
    return *link;
  }
  void split_bucket() noexcept;

  LazyArray<Run>& runs_;
  LazyArray<RunLink> buckets_;
  std::size_t num_buckets_max_;
  std::size_t base_ = kFirstBuckets;  // a power of two: base_ <= num_buckets_ <= 2 * base_
  std::size_t num_buckets_ = kFirstBuckets;
  std::size_t num_runs_ = 0;
};

}  // namespace tiercel
