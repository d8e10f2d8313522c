// What a ghost index has counted, read out as a curve.
#include <array>
#include <cmath>
#include <stdexcept>
#include <string>

#include "ghost/ghost_index.hpp"

namespace tiercel {

// What so few samples leave open of a share, all shares having been as likely before (the beta distribution's
// deviation).
double GhostIndex::error_of_few(double share) const noexcept {
  const double num_samples = recency_.count().num_samples;
  const double middle = (share * num_samples + 1) / (num_samples + 2);
  return std::sqrt(middle * (1 - middle) / (num_samples + 3));
}

std::vector<HitRate> GhostIndex::curve(std::span<const std::uint64_t> capacities) const {
  const std::lock_guard lock(mutex_);
  double weight = 0;
  for (const Part& part : *parts_) weight += part.weight;
  const double others = uses_ - hot_uses_;
  std::vector<HitRate> rates;
  rates.reserve(capacities.size());
  for (const std::uint64_t capacity : capacities) {
    if (options_.span_blocks && capacity > *options_.span_blocks) {
      throw std::invalid_argument("capacities: " + std::to_string(capacity) +
                                  " is above span_blocks = " + std::to_string(*options_.span_blocks));
    }
    std::array<double, kNumParts> hits;
    double sum = 0;
    for (std::size_t part = 0; part < kNumParts; ++part) sum += hits[part] = (*parts_)[part].hits.sum_to(capacity);
    const double ratio = weight == 0 ? 0 : sum / weight;
    double squares = 0;
    for (std::size_t part = 0; part < kNumParts; ++part) {
      const double apart = hits[part] - ratio * (*parts_)[part].weight;
      squares += apart * apart;
    }
    const double among_parts = weight == 0 ? 0 : std::sqrt(squares * kNumParts / (kNumParts - 1)) / weight;
    // Parts that hold nothing, or nothing but hits, agree: few samples say little all the same. And what the samples
    // lack of the uses that were seen in all, or have too many of, may be hits alone: then the share is as far off as
    // that, which is taken for twice the error.
    const double of_few = error_of_few(ratio) * std::sqrt(1 - rate());
    const double of_uses = others == 0 ? 0 : (1 - ratio) * (1 - weight / others) / 2;
    const double error = std::hypot(among_parts, of_few, of_uses);
    if (uses_ == 0) {
      rates.push_back({0, 0});
    } else {
      rates.push_back({(hot_hits_->sum_to(capacity) + ratio * others) / uses_, error * others / uses_});
    }
  }
  return rates;
}

GhostStats GhostIndex::stats() const {
  const std::lock_guard lock(mutex_);
  const Recency::Count count = recency_.count();
  const std::size_t num_bytes = sizeof(*this) + recency_.num_bytes() + sizeof(UseSketch) +
                                sizeof(*parts_->data()) * kNumParts + sizeof(DistanceHistogram) +
                                used_.capacity() * sizeof(Use) + sampled_.capacity() * sizeof(std::uint64_t);
  return {num_blocks_, rate(), count.num_samples, count.num_hot, num_bytes};
}

}  // namespace tiercel
