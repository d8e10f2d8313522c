#include "index/policies/two_part.hpp"

#include <algorithm>

#include "index/policies/ranked.hpp"

namespace tiercel {

std::size_t TwoPartPolicy::num_alike(RunId run, std::span<const Key> keys) const {
  if (run != kNoRun && members_[run].num_hits != 0) return 0;
  const Part first = run == kNoRun ? part_of(keys[0]) : members_[run].part;
  std::size_t num_blocks = 0;
  while (num_blocks < keys.size() && part_of(keys[num_blocks]) == first) ++num_blocks;
  return num_blocks;
}

void TwoPartPolicy::enter(RunId run, std::uint32_t num_blocks) {
  const std::uint32_t stop = tier_.held[run].num_present;
  for (std::uint32_t at = stop - num_blocks; at < stop; ++at) entering(tier_.runs[run].keys[at]);
  num_blocks_[members_[run].part] += num_blocks;
}

void TwoPartPolicy::inserted(RunId run, std::uint32_t num_blocks) {
  num_runs_seen_ = std::max(num_runs_seen_, std::size_t{run} + 1);
  members_[run] = {++num_turns_, 0, part_of(tier_.runs[run].keys[0])};
  enter(run, num_blocks);
  leaves_[members_[run].part].push(run, rank_of(run));
}

void TwoPartPolicy::grown(RunId run, std::uint32_t num_blocks) {
  enter(run, num_blocks);
  members_[run].turn = ++num_turns_;
  rerank(run);
}

void TwoPartPolicy::place(RunId run, Part part) {
  Member& member = members_[run];
  member.turn = ++num_turns_;
  if (member.part == part) return rerank(run);
  const bool is_leaf = leaves_[member.part].contains(run);
  if (is_leaf) leaves_[member.part].remove(run);
  num_blocks_[member.part] -= tier_.held[run].num_present;
  member.part = part;
  num_blocks_[part] += tier_.held[run].num_present;
  if (is_leaf) leaves_[part].push(run, rank_of(run));
}

void TwoPartPolicy::trimmed(RunId run, std::uint32_t first, std::uint32_t stop, Leave leave) {
  const Part part = members_[run].part;
  num_blocks_[part] -= stop - first;
  if (leave == Leave::kDropped) return;
  for (std::uint32_t at = stop; at-- > first;) evicted(tier_.runs[run].keys[at], part);
}

void TwoPartPolicy::removed(RunId run) {
  LeafHeap& leaves = leaves_[members_[run].part];
  if (leaves.contains(run)) leaves.remove(run);
}

void TwoPartPolicy::split(RunId head, RunId tail) {
  num_runs_seen_ = std::max(num_runs_seen_, std::size_t{head} + 1);
  members_[head] = members_[tail];
}

void TwoPartPolicy::clear() {
  for (LeafHeap& leaves : leaves_) leaves.clear();
  num_blocks_ = {};
}

TwoPartPolicy::Offer TwoPartPolicy::offer() const {
  if (leaves_[kPlain].empty()) return {kBetter};
  if (leaves_[kBetter].empty()) return {kPlain};
  const std::uint8_t plain = tier_.runs[leaves_[kPlain].top()].priority;
  const std::uint8_t better = tier_.runs[leaves_[kBetter].top()].priority;
  if (plain != better) return {plain < better ? kPlain : kBetter};
  return next_offer();
}

void TwoPartPolicy::pass_over(RunId run) {
  leaves_[members_[run].part].remove(run);
  passed_.push_back(run);
}

void TwoPartPolicy::offer_again() {
  for (const RunId run : passed_) leaves_[members_[run].part].push(run, rank_of(run));
  passed_.clear();
}

// Only the first one is sure: the others depend on what the parts' sizes are by then.
std::size_t TwoPartPolicy::peek(std::span<RunId> victims) const {
  if (victims.empty()) return 0;
  const RunId first = victim();
  if (first == kNoRun) return 0;
  const Part part = members_[first].part;
  const std::size_t num_known = leaves_[part].peek(victims);
  if (num_known == victims.size()) return num_known;
  return num_known + leaves_[part == kPlain ? kBetter : kPlain].peek(victims.subspan(num_known));
}

std::vector<RunId> TwoPartPolicy::order() const {
  std::vector<Rank> ranks(num_runs_seen_);
  for (RunId run = 0; run < num_runs_seen_; ++run) {
    ranks[run] = make_rank(tier_.runs[run].priority, members_[run].part, members_[run].turn);
  }
  return order_by_rank(tier_, num_runs_seen_, ranks);
}

std::size_t TwoPartPolicy::num_bytes() const {
  return num_runs_seen_ * sizeof(Member) + leaves_[kPlain].num_bytes() + leaves_[kBetter].num_bytes();
}

}  // namespace tiercel
