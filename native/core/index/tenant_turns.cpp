#include "index/tenant_turns.hpp"

#include <algorithm>
#include <tuple>

namespace tiercel {

TenantTurns::TenantTurns(const RunTree& tree, std::size_t tier) : tree_(tree), tier_(tier) {
  for (std::size_t tenant = 0; tenant < tree.num_tenants(); ++tenant) {
    const auto number = static_cast<Tenant>(tenant);
    const std::uint32_t num_above = tree.share(tier, number).num_above_reserve();
    const RunId victim = num_above == 0 ? kNoRun : tree.policy(tier, number).victim();
    if (victim == kNoRun) continue;
    turns_.push_back({number, num_above, victim, 0, 0.0f});
    look(turns_.back());
  }
}

TenantTurn& TenantTurns::next() noexcept {
  const auto leaves_sooner = [](const TenantTurn& a, const TenantTurn& b) {
    return std::tie(a.priority, a.last_used, b.num_above) < std::tie(b.priority, b.last_used, a.num_above);
  };
  return *std::min_element(turns_.begin(), turns_.end(), leaves_sooner);
}

void TenantTurns::renew(TenantTurn& turn, std::uint32_t num_blocks, RunId victim) {
  turn.num_above -= std::min(turn.num_above, num_blocks);
  turn.victim = victim;
  if (turn.num_above != 0 && victim != kNoRun) return look(turn);
  turns_.erase(turns_.begin() + (&turn - turns_.data()));
}

void TenantTurns::look(TenantTurn& turn) const noexcept {
  turn.priority = tree_.run(turn.victim).priority;
  turn.last_used = tree_.tier_run(tier_, turn.victim).last_used;
}

}  // namespace tiercel
