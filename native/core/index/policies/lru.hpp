// Least recently used: one list of runs, oldest first. Because a path is touched from its end to its top, a parent is
// always younger than its children, so the oldest run is a leaf and no leaf set is needed.
#pragma once

#include "index/lazy_array.hpp"
#include "index/policy.hpp"

namespace tiercel {

class LruPolicy final : public EvictionPolicy {
 public:
  explicit LruPolicy(std::size_t num_runs) : links_(num_runs) {}

  void inserted(RunId run) override;
  void touched(RunId run) override;
  void removed(RunId run) override;
  void split(RunId head, RunId tail) override;
  RunId next_victim(RunId previous) const override { return previous == kNoRun ? oldest_ : links_[previous].younger; }
  std::size_t num_bytes() const override { return num_runs_seen_ * sizeof(Links); }

 private:
  struct Links {
    RunId older;
    RunId younger;
  };

  RunId& younger_of(RunId run) noexcept { return run == kNoRun ? oldest_ : links_[run].younger; }
  RunId& older_of(RunId run) noexcept { return run == kNoRun ? youngest_ : links_[run].older; }
  void link_behind(RunId older, RunId run) noexcept;
  void unlink(RunId run) noexcept;

  LazyArray<Links> links_;
  RunId oldest_ = kNoRun;
  RunId youngest_ = kNoRun;
  std::size_t num_runs_seen_ = 0;  // highest run number + 1
};

}  // namespace tiercel
