// What the policies have in common that give every run a rank and evict the leaf of the lowest: lfu, fifo, filo,
// mru, cost and lru with a hit reward. Such a policy says how a run's standing begins, changes with a use, and ranks.
//
// A leaf grows in place as long as no lookup has used it, as a sequence that is being decoded does: then it counts as
// stored at once, when its end was. What is used and then goes on is told apart from what it goes on with.
#pragma once

#include "index/policies/leaf_heap.hpp"
#include "index/policy.hpp"

namespace tiercel {

class RankedPolicy : public EvictionPolicy {
 public:
  explicit RankedPolicy(const TierView& tier)
      : EvictionPolicy(tier), standings_(tier.num_runs), leaves_(tier.num_runs) {}

  std::size_t num_alike(RunId run, std::span<const Key> keys) const override {
    return run == kNoRun || standings_[run].num_hits == 0 ? keys.size() : 0;
  }
  void inserted(RunId run, std::uint32_t num_blocks) override;
  void grown(RunId run, std::uint32_t num_blocks) override;
  void used(RunId run, Use use) override;
  void became_inner(RunId run) override;
  void became_leaf(RunId run) override { leaves_.push(run, rank_of(run)); }
  void trimmed(RunId run, std::uint32_t first, std::uint32_t stop, Leave leave) override;
  void removed(RunId run) override;
  void split(RunId head, RunId tail) override;
  void raised(RunId run, std::uint8_t) override { rerank(run); }
  void clear() override;

  RunId victim() const override { return leaves_.top(); }
  void pass_over(RunId run) override;
  void offer_again() override;
  std::size_t peek(std::span<RunId> victims) const override { return leaves_.peek(victims); }
  std::vector<RunId> order() const override;
  std::size_t num_bytes() const override { return num_runs_seen_ * sizeof(Standing) + leaves_.num_bytes(); }

 protected:
  struct Standing {
    double value;            // the policy's
    std::uint64_t turn;      // what ties go by: the lower leaves first
    std::uint32_t num_hits;  // lookups since it was stored
    std::uint32_t is_known;
  };

  // A run that is stored or recovered; num_hits is 0.
  virtual void begin(Standing& standing, RunId run, Use use) = 0;
  // A use of a run; a lookup is counted already.
  virtual void renew(Standing& standing, RunId run, Use use) = 0;
  virtual double value_of(const Standing& standing, RunId) const { return standing.value; }
  // Its blocks before `stop` leave, from the last on.
  virtual void evicting(const Standing&, RunId, std::uint32_t /*stop*/) {}

  // Turns: what comes now, later than all before; or sooner than all before, in which case what is recovered later is
  // still worth more than what was recovered before.
  std::uint64_t last_turn() noexcept { return kMiddle + ++num_turns_; }
  std::uint64_t first_turn(Use use) noexcept {
    return use == Use::kRestore ? kMiddle + ++num_turns_ : kMiddle - ++num_turns_;
  }
  const Standing& standing(RunId run) const noexcept { return standings_[run]; }

 private:
  static constexpr std::uint64_t kMiddle = std::uint64_t{1} << 62;

  Rank rank_of(RunId run) const noexcept {
    return make_rank(tier_.runs[run].priority, value_of(standings_[run], run), standings_[run].turn);
  }
  void rerank(RunId run) {
    if (leaves_.contains(run)) leaves_.update(run, rank_of(run));
  }

  LazyArray<Standing> standings_;
  LeafHeap leaves_;
  std::vector<RunId> passed_;
  std::uint64_t num_turns_ = 0;
  std::size_t num_runs_seen_ = 0;
};

// Runs of a tier in the order in which they would leave it, if nothing else happened: each when its rank is the lowest
// of all whose children have left.
std::vector<RunId> order_by_rank(const TierView& tier, std::size_t num_runs_seen,
                                 const std::vector<Rank>& ranks_by_run);

}  // namespace tiercel
