// The seam between the index and an eviction policy: in which order runs leave one tier.
//
// Duties of the index:
//   - report every run that enters the tier (`inserted`, or `split` when part of a run becomes its parent) and leaves
//   it
//     (`removed`), each exactly once;
//   - report a use of a path as `touched`, run by run from the deepest to the top, after any insertion at its end;
//   - take blocks off a victim's end, and report a victim that it may not evict (pinned) as `touched` with its path.
// Duties of the policy:
//   - a run that has children in the tier never comes before them in the order of `next_victim`;
//   - no call allocates memory by the size of the tier or walks it; calls come under the index's lock.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "index/types.hpp"

namespace tiercel {

class EvictionPolicy {
 public:
  virtual ~EvictionPolicy() = default;
  virtual void inserted(RunId run) = 0;
  virtual void touched(RunId run) = 0;
  virtual void removed(RunId run) = 0;
  // `head` holds from now on the leading blocks of `tail` and is its parent; both were used as `tail` was.
  virtual void split(RunId head, RunId tail) = 0;
  // The run to evict after `previous`, or the first one after kNoRun; kNoRun when there is none.
  virtual RunId next_victim(RunId previous) const = 0;
  virtual std::size_t num_bytes() const = 0;
};

// A policy by name for up to `num_runs` runs. std::invalid_argument, naming the known ones, for an unknown name.
std::unique_ptr<EvictionPolicy> make_eviction_policy(const std::string& name, std::size_t num_runs);

}  // namespace tiercel
