// The keys of blocks that were evicted, oldest first: so many that a policy can tell a block that came back too late
// from one that was never there. A key is named by 64 of its bits; two that agree in them are one ghost, which costs a
// wrong guess once in 2^64 / length. Bounded by its capacity; a chained hash table over an array of linked entries.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "index/lazy_array.hpp"
#include "key.hpp"

namespace tiercel {

class GhostList {
 public:
  explicit GhostList(std::uint32_t capacity)
      : entries_(std::size_t{capacity} + 1),
        buckets_(std::bit_ceil(std::size_t{capacity} + 1)),
        mask_(std::bit_ceil(std::size_t{capacity} + 1) - 1),
        capacity_(capacity) {}

  std::uint32_t size() const noexcept { return size_; }
  bool contains(const Key& key) const noexcept { return find(key.hash64()) != kNone; }

  // The key is the youngest; at the capacity the oldest goes.
  void add(const Key& key) {
    if (capacity_ == 0) return;
    erase(key);
    if (size_ == capacity_) drop_oldest();
    const std::uint32_t at = take_entry();
    const std::uint64_t name = key.hash64();
    std::uint32_t& bucket = buckets_[name & mask_];
    entries_[at] = {name, youngest_, kNone, bucket};
    bucket = at;
    (youngest_ == kNone ? oldest_ : entries_[youngest_].younger) = at;
    youngest_ = at;
    ++size_;
  }
  // False if it was not there.
  bool erase(const Key& key) {
    const std::uint32_t at = find(key.hash64());
    if (at != kNone) remove(at);
    return at != kNone;
  }
  void drop_oldest() { remove(oldest_); }
  void clear() {
    while (size_ != 0) drop_oldest();
  }

  std::size_t num_bytes() const noexcept {
    return num_seen_ * sizeof(Entry) + (num_seen_ == 0 ? 0 : (mask_ + 1) * sizeof(std::uint32_t));
  }

 private:
  static constexpr std::uint32_t kNone = 0;  // entries count from 1
  struct Entry {
    std::uint64_t name;
    std::uint32_t older;
    std::uint32_t younger;
    std::uint32_t next;  // in the bucket, or among the unused
  };

  std::uint32_t find(std::uint64_t name) const noexcept {
    std::uint32_t at = buckets_[name & mask_];
    while (at != kNone && entries_[at].name != name) at = entries_[at].next;
    return at;
  }
  std::uint32_t take_entry() noexcept {
    if (unused_ == kNone) return ++num_seen_;
    const std::uint32_t at = unused_;
    unused_ = entries_[at].next;
    return at;
  }
  void remove(std::uint32_t at) noexcept {
    Entry& entry = entries_[at];
    std::uint32_t* link = &buckets_[entry.name & mask_];
    while (*link != at) link = &entries_[*link].next;
    *link = entry.next;
    (entry.older == kNone ? oldest_ : entries_[entry.older].younger) = entry.younger;
    (entry.younger == kNone ? youngest_ : entries_[entry.younger].older) = entry.older;
    entry.next = unused_;
    unused_ = at;
    --size_;
  }

  LazyArray<Entry> entries_;
  LazyArray<std::uint32_t> buckets_;
  std::size_t mask_;
  std::uint32_t capacity_;
  std::uint32_t size_ = 0;
  std::uint32_t num_seen_ = 0;
  std::uint32_t oldest_ = kNone;
  std::uint32_t youngest_ = kNone;
  std::uint32_t unused_ = kNone;
};

}  // namespace tiercel
