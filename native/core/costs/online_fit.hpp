// Least squares with exponential forgetting, for a few coefficients that are never negative.
//
// Only the normal equations are kept, so an observation costs O(features^2) whatever came before. Observations weigh
// the inverse square of what was measured: it is relative errors that count, over four decades of sizes. Sums and
// products are rounded one by one and in a fixed order. Not thread-safe.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace tiercel {

class OnlineFit {
 public:
  static constexpr std::size_t kNumFeaturesMax = 4;

  // prior: the coefficients assumed before anything was seen, one per feature; it decides between features that the
  // observations cannot tell apart. 0 where nothing is assumed. std::invalid_argument: none, or too many.
  explicit OnlineFit(std::span<const double> prior);

  // std::invalid_argument: not as many features as coefficients; nothing is changed.
  void observe(std::span<const double> features, double measured);

  std::uint64_t num_observations() const noexcept { return num_observations_; }
  std::span<const double> coefficients() const noexcept { return {coefficients_.data(), size_}; }

 private:
  using Values = std::array<double, kNumFeaturesMax>;

  void solve() noexcept;

  std::size_t size_;
  std::uint64_t num_observations_ = 0;
  std::array<Values, kNumFeaturesMax> matrix_{};
  Values vector_{};
  Values prior_diagonal_{};
  Values prior_vector_{};
  Values coefficients_{};
};

}  // namespace tiercel
