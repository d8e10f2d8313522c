#include "index/policies/lru.hpp"

#include <algorithm>

namespace tiercel {

void LruPolicy::link_behind(RunId older, RunId run) noexcept {
  const RunId younger = younger_of(older);
  links_[run] = {older, younger};
  younger_of(older) = run;
  older_of(younger) = run;
}

void LruPolicy::unlink(RunId run) noexcept {
  const Links links = links_[run];
  younger_of(links.older) = links.younger;
  older_of(links.younger) = links.older;
}

void LruPolicy::inserted(RunId run) {
  num_runs_seen_ = std::max(num_runs_seen_, std::size_t{run} + 1);
  link_behind(youngest_, run);
}

void LruPolicy::touched(RunId run) {
  if (run == youngest_) return;
  unlink(run);
  link_behind(youngest_, run);
}

void LruPolicy::removed(RunId run) { unlink(run); }

void LruPolicy::split(RunId head, RunId tail) {
  num_runs_seen_ = std::max(num_runs_seen_, std::size_t{head} + 1);
  link_behind(tail, head);
}

}  // namespace tiercel
