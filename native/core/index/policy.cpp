#include "index/policy.hpp"

#include <array>
#include <stdexcept>
#include <string_view>

#include "index/policies/arc.hpp"
#include "index/policies/cost.hpp"
#include "index/policies/fifo.hpp"
#include "index/policies/filo.hpp"
#include "index/policies/lfu.hpp"
#include "index/policies/lru.hpp"
#include "index/policies/lru_reward.hpp"
#include "index/policies/mru.hpp"
#include "index/policies/slru.hpp"
#include "index/policies/two_queue.hpp"

namespace tiercel {

namespace {

template <typename Policy>
std::unique_ptr<EvictionPolicy> make(const PolicyOptions&, const TierView& tier) {
  return std::make_unique<Policy>(tier);
}

std::unique_ptr<EvictionPolicy> make_lru(const PolicyOptions& options, const TierView& tier) {
  if (options.hit_reward_s > 0.0) return std::make_unique<RewardedLruPolicy>(options, tier);
  return std::make_unique<LruPolicy>(tier);
}

std::unique_ptr<EvictionPolicy> make_slru(const PolicyOptions& options, const TierView& tier) {
  return std::make_unique<SlruPolicy>(options, tier);
}

std::unique_ptr<EvictionPolicy> make_cost(const PolicyOptions& options, const TierView& tier) {
  return std::make_unique<CostPolicy>(options, tier);
}

struct Known {
  std::string_view name;
  std::unique_ptr<EvictionPolicy> (*make)(const PolicyOptions&, const TierView&);
};

constexpr std::array kKnown = {
    Known{"lru", make_lru},          Known{"2q", make<TwoQueuePolicy>}, Known{"slru", make_slru},
    Known{"lfu", make<LfuPolicy>},   Known{"fifo", make<FifoPolicy>},   Known{"mru", make<MruPolicy>},
    Known{"filo", make<FiloPolicy>}, Known{"arc", make<ArcPolicy>},     Known{"cost", make_cost},
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
