// How long evicted blocks had not been used: the sum and a histogram, per tier. If a tier's blocks leave soon after
// their last use, it is too small for what it is asked.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>

namespace tiercel {

class EvictionAges {
 public:
  // Upper bounds, inclusive, of all counts but the last.
  static constexpr std::array kBoundsS = {1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0};
  static constexpr float kNeverUsed = -1.0f;
  using Counts = std::array<std::uint64_t, kBoundsS.size() + 1>;

  // What to keep with a run that is used now. Seconds since the first call, so that a float tells them apart well.
  float stamp(double now_s) noexcept {
    if (!first_s_) first_s_ = now_s;
    return static_cast<float>(now_s - *first_s_);
  }
  // Blocks with this stamp are evicted now. What was recovered and not used since has no age.
  void add(float stamp, double now_s, std::uint32_t num_blocks) noexcept {
    if (stamp == kNeverUsed) return;
    const double age_s = std::max(now_s - *first_s_ - static_cast<double>(stamp), 0.0);
    sum_s_ += age_s * num_blocks;
    // What leaves together is mostly of one age.
    if (age_s <= above_s_ || age_s > up_to_s_) find_bounds(age_s);
    counts_[number_] += num_blocks;
  }

  double sum_s() const noexcept { return sum_s_; }
  const Counts& counts() const noexcept { return counts_; }

 private:
  void find_bounds(double age_s) noexcept {
    number_ = 0;
    for (const double bound_s : kBoundsS) number_ += age_s > bound_s;
    above_s_ = number_ == 0 ? -1.0 : kBoundsS[number_ - 1];
    up_to_s_ = number_ == kBoundsS.size() ? std::numeric_limits<double>::infinity() : kBoundsS[number_];
  }

  std::optional<double> first_s_;
  double sum_s_ = 0.0;
  Counts counts_{};
  std::size_t number_ = 0;  // of the count that the last age went into, and its bounds
  double above_s_ = -1.0;
  double up_to_s_ = kBoundsS[0];
};

}  // namespace tiercel
