#include "index/policies/ranked.hpp"

#include <algorithm>
#include <queue>
#include <utility>

namespace tiercel {

void RankedPolicy::inserted(RunId run, std::uint32_t) {
  num_runs_seen_ = std::max(num_runs_seen_, std::size_t{run} + 1);
  standings_[run] = {0.0, 0, 0, 1};
  begin(standings_[run], run, Use::kStore);
  leaves_.push(run, rank_of(run));
}

void RankedPolicy::grown(RunId run, std::uint32_t) {
  if (standings_[run].num_hits == 0) begin(standings_[run], run, Use::kStore);
  rerank(run);
}

void RankedPolicy::used(RunId run, Use use) {
  Standing& standing = standings_[run];
  if (use == Use::kRestore) {
    begin(standing, run, use);
  } else {
    standing.num_hits += use == Use::kLookup;
    renew(standing, run, use);
  }
  rerank(run);
}

void RankedPolicy::became_inner(RunId run) { leaves_.remove(run); }

void RankedPolicy::trimmed(RunId run, std::uint32_t first, std::uint32_t stop, Leave leave) {
  if (leave == Leave::kEvicted) evicting(standings_[run], run, stop);
  if (first != 0) rerank(run);
}

void RankedPolicy::removed(RunId run) {
  if (leaves_.contains(run)) leaves_.remove(run);
  standings_[run].is_known = 0;
}

void RankedPolicy::split(RunId head, RunId tail) {
  num_runs_seen_ = std::max(num_runs_seen_, std::size_t{head} + 1);
  standings_[head] = standings_[tail];
}

void RankedPolicy::clear() {
  leaves_.clear();
  for (std::size_t run = 0; run < num_runs_seen_; ++run) standings_[run].is_known = 0;
}

void RankedPolicy::pass_over(RunId run) {
  leaves_.remove(run);
  passed_.push_back(run);
}

void RankedPolicy::offer_again() {
  for (const RunId run : passed_) leaves_.push(run, rank_of(run));
  passed_.clear();
}

std::vector<RunId> RankedPolicy::order() const {
  std::vector<Rank> ranks(num_runs_seen_);
  for (RunId run = 0; run < num_runs_seen_; ++run) {
    if (standings_[run].is_known != 0) ranks[run] = rank_of(run);
  }
  return order_by_rank(tier_, num_runs_seen_, ranks);
}

std::vector<RunId> order_by_rank(const TierView& tier, std::size_t num_runs_seen,
                                 const std::vector<Rank>& ranks_by_run) {
  using Leaf = std::pair<Rank, RunId>;
  std::priority_queue<Leaf, std::vector<Leaf>, std::greater<>> leaves;
  std::vector<std::uint32_t> num_children(num_runs_seen, 0);
  for (RunId run = 0; run < num_runs_seen; ++run) {
    if (tier.held[run].num_present == 0 || tier.runs[run].tenant != tier.tenant) continue;
    num_children[run] = tier.held[run].num_children;
    if (num_children[run] == 0) leaves.push({ranks_by_run[run], run});
  }
  std::vector<RunId> runs;
  while (!leaves.empty()) {
    const RunId run = leaves.top().second;
    leaves.pop();
    runs.push_back(run);
    const RunId parent = tier.runs[run].parent;
    if (parent != kNoRun && --num_children[parent] == 0) leaves.push({ranks_by_run[parent], parent});
  }
  return runs;
}

}  // namespace tiercel
