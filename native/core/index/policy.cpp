#include "index/policy.hpp"

#include <stdexcept>

#include "index/policies/lru.hpp"

namespace tiercel {

std::unique_ptr<EvictionPolicy> make_eviction_policy(const std::string& name, std::size_t num_runs) {
  if (name == "lru") return std::make_unique<LruPolicy>(num_runs);
  throw std::invalid_argument("unknown eviction policy '" + name + "'; known: lru");
}

}  // namespace tiercel
