// Who shares the tiers: tenants, small numbers that roots belong to. Tenant 0 is everybody who was not named.
//
// In each tier a tenant has a reserve, the slots that nobody else evicts it below, and a limit, the slots that it holds
// at most. A reserve is no gap kept free: others use it until its tenant wants it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace tiercel {

using Tenant = std::uint8_t;

inline constexpr Tenant kEverybody = 0;
inline constexpr std::size_t kNumTenantsMax = 64;  // named ones

struct TenantOptions {  // both per tier, in slots
  std::vector<std::uint32_t> reserves;
  std::vector<std::uint32_t> limits;
};

struct TenantShare {
  std::uint32_t num_held = 0;  // blocks in the tier, ready or being written
  std::uint32_t reserve = 0;
  std::uint32_t limit = 0;
  std::uint64_t num_evicted = 0;

  std::uint32_t num_above_reserve() const noexcept { return num_held > reserve ? num_held - reserve : 0; }
};

}  // namespace tiercel
