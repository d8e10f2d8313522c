// Adaptive replacement cache: what was used once and what was used again, each with ghosts of what left it; a block
// that comes back as a ghost of one part moves the wanted size of the first part towards it. Megiddo and Modha, ARC: A
// Self-Tuning, Low Overhead Replacement Cache (2003). Both ghost lists together name as many blocks as the tier holds.
#pragma once

#include "index/policies/ghost_list.hpp"
#include "index/policies/two_part.hpp"

namespace tiercel {

class ArcPolicy final : public TwoPartPolicy {
 public:
  explicit ArcPolicy(const TierView& tier) : TwoPartPolicy(tier), once_(tier.num_slots), again_(tier.num_slots) {}

  void used(RunId run, Use use) override {
    num_hits(run) += use == Use::kLookup;
    place(run, use == Use::kLookup ? kBetter : part(run));
  }
  void clear() override {
    TwoPartPolicy::clear();
    once_.clear();
    again_.clear();
    num_once_wanted_ = 0.0;
  }
  PolicyStats stats() const override {
    return {num_blocks(kBetter), std::uint64_t{once_.size()} + again_.size(), num_ghost_hits_};
  }
  std::size_t num_bytes() const override { return TwoPartPolicy::num_bytes() + once_.num_bytes() + again_.num_bytes(); }

 private:
  Part part_of(const Key& key) const override { return once_.contains(key) || again_.contains(key) ? kBetter : kPlain; }
  void entering(const Key& key) override;
  void evicted(const Key& key, Part part) override;
  Offer next_offer() const override;

  GhostList once_;
  GhostList again_;
  double num_once_wanted_ = 0.0;
  std::uint64_t num_ghost_hits_ = 0;
};

}  // namespace tiercel
