// Weighted counts of reuse distances in blocks: exact below 64, and in 32 steps to each doubling above, within which
// they are taken as evenly spread.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace tiercel {

class DistanceHistogram {
 public:
  static constexpr std::uint64_t kDistanceMax = (std::uint64_t{1} << 32) - 1;

  void add(std::uint64_t distance, double weight) noexcept {
    weights_[bucket_of(std::min(distance, kDistanceMax))] += weight;
  }

  // Weight of the distances up to `capacity`.
  double sum_to(std::uint64_t capacity) const noexcept {
    const std::size_t last = bucket_of(std::min(capacity, kDistanceMax));
    double sum = 0;
    for (std::size_t bucket = 0; bucket < last; ++bucket) sum += weights_[bucket];
    const std::uint64_t first = first_of(last);
    const double width = static_cast<double>(first_of(last + 1) - first);
    return sum + weights_[last] * static_cast<double>(std::min(capacity, kDistanceMax) + 1 - first) / width;
  }

  void halve() noexcept {
    for (double& weight : weights_) weight /= 2;
  }
  void clear() noexcept { weights_.fill(0); }

 private:
  static constexpr int kStepBits = 5;
  static constexpr std::size_t kSteps = std::size_t{1} << kStepBits;

  static std::size_t bucket_of(std::uint64_t distance) noexcept {
    if (distance < 2 * kSteps) return distance;
    const int shift = static_cast<int>(std::bit_width(distance)) - 1 - kStepBits;
    return static_cast<std::size_t>(shift) * kSteps + (distance >> shift);
  }
  static std::uint64_t first_of(std::size_t bucket) noexcept {
    if (bucket < 2 * kSteps) return bucket;
    const std::size_t shift = bucket / kSteps - 1;
    return (bucket - shift * kSteps) << shift;
  }

  std::array<double, (32 - kStepBits + 1) * kSteps> weights_{};
};

}  // namespace tiercel
