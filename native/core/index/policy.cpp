#include "index/policy.hpp"

#include <array>
#include <stdexcept>
#include <string_view>

#include "index/policies/lru.hpp"

namespace tiercel {

namespace {

template <typename Policy>
std::unique_ptr<EvictionPolicy> make(const PolicyOptions&, const TierView& tier) {
  return std::make_unique<Policy>(tier);
}

struct Known {
  std::string_view name;
  std::unique_ptr<EvictionPolicy> (*make)(const PolicyOptions&, const TierView&);
};

constexpr std::array kKnown = {
    Known{"lru", make<LruPolicy>},
};

}  // namespace

std::vector<std::string> eviction_policy_names() {
  std::vector<std::string> names;
  for (const Known& known : kKnown) names.emplace_back(known.name);
  return names;
}

std::unique_ptr<EvictionPolicy> make_eviction_policy(const PolicyOptions& options, const TierView& tier) {
  std::string names;
  for (const Known& known : kKnown) {
    if (known.name == options.name) return known.make(options, tier);
    names += (names.empty() ? "" : ", ") + std::string(known.name);
  }
  throw std::invalid_argument("policies: no eviction policy is named '" + options.name + "'; known: " + names);
}

}  // namespace tiercel
