// RunTree: what differs where tenants share the tiers.
#include <algorithm>
#include <tuple>

#include "index/run_tree.hpp"

namespace tiercel {

void RunTree::assign(const Key& root, Tenant tenant) {
  const Tenant old_tenant = tenant_of(root);
  const std::optional<std::uint32_t> number = roots_.assign(root, tenant);
  if (old_tenant == tenant || !number) return;
  for (std::size_t tier = 0; tier < tiers_.size(); ++tier) {
    std::vector<RunId> runs = policy(tier, old_tenant).order();
    std::erase_if(runs, [&](RunId id) { return runs_[id].root != *number; });
    hand_over(tier, runs, old_tenant, tenant);
  }
  for (RunId id = 0; id < run_end_; ++id) {
    if (runs_[id].num_blocks != 0 && runs_[id].root == *number) runs_[id].tenant = tenant;
  }
}

// runs: children before parents.
void RunTree::hand_over(std::size_t tier, std::span<const RunId> runs, Tenant source, Tenant target) {
  Holding& from = tiers_[tier].tenants[source];
  Holding& to = tiers_[tier].tenants[target];
  for (const RunId id : runs) {
    const std::uint32_t num_blocks = tiers_[tier].runs[id].num_present;
    from.policy->trimmed(id, 0, num_blocks, Leave::kDropped);
    count_held(from, 0, num_blocks);
    from.policy->removed(id);
  }
  for (const RunId id : runs) {
    const TierRun& held = tiers_[tier].runs[id];
    count_held(to, held.num_present, 0);
    to.policy->inserted(id, held.num_present);
    if (held.num_children != 0) to.policy->became_inner(id);
    to.policy->used(id, Use::kRestore);
  }
}

std::vector<RunId> RunTree::order(std::size_t tier) const {
  const Tier& held = tiers_[tier];
  std::vector<RunId> merged = held.tenants[0].policy->order();
  const auto leaves_sooner = [&](RunId a, RunId b) {
    return std::tie(runs_[a].priority, held.runs[a].last_used) < std::tie(runs_[b].priority, held.runs[b].last_used);
  };
  for (std::size_t tenant = 1; tenant < num_tenants_; ++tenant) {
    const std::vector<RunId> others = held.tenants[tenant].policy->order();
    std::vector<RunId> both(merged.size() + others.size());
    std::merge(merged.begin(), merged.end(), others.begin(), others.end(), both.begin(), leaves_sooner);
    merged = std::move(both);
  }
  return merged;
}

PolicyStats RunTree::policy_stats(std::size_t tier) const {
  PolicyStats sum;
  for (const Holding& holding : tiers_[tier].tenants) {
    const PolicyStats stats = holding.policy->stats();
    sum.num_protected += stats.num_protected;
    sum.num_ghosts += stats.num_ghosts;
    sum.num_ghost_hits += stats.num_ghost_hits;
  }
  return sum;
}

}  // namespace tiercel
