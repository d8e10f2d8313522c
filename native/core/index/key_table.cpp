#include "index/key_table.hpp"

#include <algorithm>
#include <utility>

namespace tiercel {

KeyTable::KeyTable(LazyArray<Run>& runs, std::size_t num_runs)
    : runs_(runs),
      buckets_(std::max(num_runs * kBucketsPerRun, kFirstBuckets)),
      num_buckets_max_(std::max(num_runs * kBucketsPerRun, kFirstBuckets)) {}

// Move what belongs there from the bucket base_ below into a new last one.
void KeyTable::split_bucket() noexcept {
  if (num_buckets_ == 2 * base_) base_ *= 2;
  const std::size_t added = num_buckets_++;
  RunLink rest = std::exchange(buckets_[added - base_], kNoLink);
  RunLink* stay = &buckets_[added - base_];
  RunLink* move = &buckets_[added];
  while (rest != kNoLink) {
    Run& run = runs_[rest - 1];
    RunLink*& end = bucket_of(run.first_key) == added ? move : stay;
    *end = rest;
    end = &run.next_in_bucket;
    rest = std::exchange(run.next_in_bucket, kNoLink);
  }
}

void KeyTable::insert(RunId run) {
  ++num_runs_;
  while (num_buckets_ < std::min(num_runs_ * kBucketsPerRun, num_buckets_max_)) split_bucket();
  RunLink& first = buckets_[bucket_of(runs_[run].first_key)];
  runs_[run].next_in_bucket = std::exchange(first, run + 1);
}

void KeyTable::replace(RunId old_run, RunId new_run) {
  link_to(old_run) = new_run + 1;
  runs_[new_run].next_in_bucket = runs_[old_run].next_in_bucket;
}

}  // namespace tiercel
