// Least recently used: one log of uses. Because a path is used from its end to its top, a parent is always younger than
// its children, so the oldest run is a leaf and no leaf set is needed. A leaf grows in place: its end and what joins it
// are used in the same moment.
#pragma once

#include "index/policies/use_log.hpp"
#include "index/policy.hpp"

namespace tiercel {

class LruPolicy final : public EvictionPolicy {
 public:
  explicit LruPolicy(const TierView& tier) : EvictionPolicy(tier), log_(tier) {}

  std::size_t num_alike(RunId, std::span<const Key> keys) const override { return keys.size(); }
  void inserted(RunId run, std::uint32_t) override { log_.append(run); }
  void grown(RunId, std::uint32_t) override {}
  void used(RunId run, Use) override { log_.use(run); }
  void became_inner(RunId) override {}
  void became_leaf(RunId) override {}
  void trimmed(RunId, std::uint32_t, std::uint32_t, Leave) override {}
  void removed(RunId run) override { log_.remove(run); }
  void split(RunId head, RunId tail) override { log_.share(head, tail); }
  void raised(RunId run, std::uint8_t) override { log_.raise(run); }
  void clear() override { log_.clear(); }

  RunId victim() const override { return log_.oldest(); }
  void pass_over(RunId run) override { log_.pass_over(run); }
  void offer_again() override { log_.offer_again(); }
  std::size_t peek(std::span<RunId> victims) const override { return log_.peek(victims); }
  std::vector<RunId> order() const override { return log_.order(); }
  std::size_t num_bytes() const override { return log_.num_bytes(); }

 private:
  UseLog log_;
};

}  // namespace tiercel
