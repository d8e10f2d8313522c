#include "index/policies/arc.hpp"

#include <algorithm>
#include <cmath>

namespace tiercel {

void ArcPolicy::entering(const Key& key) {
  const double num_once = once_.size();
  const double num_again = again_.size();
  if (once_.erase(key)) {
    num_once_wanted_ =
        std::min<double>(num_once_wanted_ + std::max(1.0, num_again / num_once), static_cast<double>(num_slots()));
  } else if (again_.erase(key)) {
    num_once_wanted_ = std::max(num_once_wanted_ - std::max(1.0, num_once / num_again), 0.0);
  } else {
    return;
  }
  ++num_ghost_hits_;
}

void ArcPolicy::evicted(const Key& key, Part part) {
  (part == kPlain ? once_ : again_).add(key);
  while (once_.size() != 0 && num_blocks(kPlain) + once_.size() > num_slots()) once_.drop_oldest();
  while (std::uint64_t{once_.size()} + again_.size() > num_slots()) {
    (again_.size() != 0 ? again_ : once_).drop_oldest();
  }
}

TwoPartPolicy::Offer ArcPolicy::next_offer() const {
  const double num_over = static_cast<double>(num_blocks(kPlain)) - num_once_wanted_;
  if (num_over <= 0.0) return {kBetter};
  return {kPlain, static_cast<std::size_t>(std::ceil(num_over))};
}

}  // namespace tiercel
