// Whose run leaves next where tenants share a tier: of those that hold more than their reserve the one whose next
// victim has the lowest priority, and among these the one whose victim was used the longest ago. So lru over all of
// them stays lru, and a tenant's own policy orders its own runs. Where times are equal, as after a restart, the one
// furthest above its reserve gives.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "index/run_tree.hpp"
#include "index/tenants.hpp"

namespace tiercel {

struct TenantTurn {
  Tenant tenant;
  std::uint32_t num_above;  // blocks that it may lose
  RunId victim;
  std::uint8_t priority;  // of the victim, as the next
  float last_used;
};

class TenantTurns {
 public:
  TenantTurns(const RunTree& tree, std::size_t tier);

  bool empty() const noexcept { return turns_.empty(); }
  std::size_t size() const noexcept { return turns_.size(); }
  std::vector<TenantTurn>& all() noexcept { return turns_; }
  // Needs one that is not empty. The turn is valid until the next `renew`.
  TenantTurn& next() noexcept;
  // The turn's tenant lost num_blocks, and this is its next victim; with none left of either it is out.
  void renew(TenantTurn& turn, std::uint32_t num_blocks, RunId victim);

 private:
  void look(TenantTurn& turn) const noexcept;

  const RunTree& tree_;
  std::size_t tier_;
  std::vector<TenantTurn> turns_;
};

}  // namespace tiercel
