// What the policies have in common that keep the runs of a tier in two parts, each in an order of turns, and choose the
// part to evict from: 2q, arc and slru. A part's size counts in blocks, inner runs included. A leaf grows in place as
// long as no lookup has used it and its part is the one that new blocks enter.
#pragma once

#include <array>

#include "index/policies/leaf_heap.hpp"
#include "index/policy.hpp"

namespace tiercel {

class TwoPartPolicy : public EvictionPolicy {
 public:
  explicit TwoPartPolicy(const TierView& tier)
      : EvictionPolicy(tier), members_(tier.num_runs), leaves_{LeafHeap(tier.num_runs), LeafHeap(tier.num_runs)} {}

  std::size_t num_alike(RunId run, std::span<const Key> keys) const override;
  void inserted(RunId run, std::uint32_t num_blocks) override;
  void grown(RunId run, std::uint32_t num_blocks) override;
  void became_inner(RunId run) override { leaves_[members_[run].part].remove(run); }
  void became_leaf(RunId run) override { leaves_[members_[run].part].push(run, rank_of(run)); }
  void trimmed(RunId run, std::uint32_t first, std::uint32_t stop, Leave leave) override;
  void removed(RunId run) override;
  void split(RunId head, RunId tail) override;
  void raised(RunId run, std::uint8_t) override { rerank(run); }
  void clear() override;

  RunId victim() const override { return leaves_[offer().part].top(); }
  std::size_t num_offered() const override { return offer().num_blocks; }
  void pass_over(RunId run) override;
  void offer_again() override;
  std::size_t peek(std::span<RunId> victims) const override;
  std::vector<RunId> order() const override;
  PolicyStats stats() const override { return {num_blocks_[kBetter], 0, 0}; }
  std::size_t num_bytes() const override;

 protected:
  enum Part : std::uint8_t { kPlain, kBetter };

  // What new blocks of these keys would enter by, if a run of one; asked before and while they enter.
  virtual Part part_of(const Key&) const { return kPlain; }
  // A block that enters, before it is counted.
  virtual void entering(const Key&) {}
  virtual void evicted(const Key&, Part) {}
  // The part to evict from if both have leaves, and how many blocks until that may change.
  struct Offer {
    Part part;
    std::size_t num_blocks = ~std::size_t{0};
  };
  virtual Offer next_offer() const = 0;

  std::uint64_t num_blocks(Part part) const noexcept { return num_blocks_[part]; }
  Part part(RunId run) const noexcept { return members_[run].part; }
  std::uint32_t& num_hits(RunId run) noexcept { return members_[run].num_hits; }
  // The run is in this part, as its youngest.
  void place(RunId run, Part part);

 private:
  struct Member {
    std::uint64_t turn;
    std::uint32_t num_hits;
    Part part;
  };

  Rank rank_of(RunId run) const noexcept { return make_rank(tier_.runs[run].priority, 0.0, members_[run].turn); }
  void rerank(RunId run) {
    if (leaves_[members_[run].part].contains(run)) leaves_[members_[run].part].update(run, rank_of(run));
  }
  void enter(RunId run, std::uint32_t num_blocks);
  Offer offer() const;

  LazyArray<Member> members_;
  std::array<LeafHeap, 2> leaves_;
  std::array<std::uint64_t, 2> num_blocks_{};
  std::vector<RunId> passed_;
  std::uint64_t num_turns_ = 0;
  std::size_t num_runs_seen_ = 0;
};

}  // namespace tiercel
