#include "costs/online_fit.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace tiercel {
namespace {

constexpr double kForgetting = 0.98;
constexpr double kPriorWeight = 0.01;
constexpr double kRidge = 1e-9;

constexpr std::size_t kSizeMax = OnlineFit::kNumFeaturesMax;

// Rows of a positive definite matrix with the right side behind each.
using Rows = std::array<std::array<double, kSizeMax + 1>, kSizeMax>;

// Solves the first `size` rows, and changes them.
std::array<double, kSizeMax> eliminate(Rows& rows, std::size_t size) noexcept {
  for (std::size_t i = 0; i < size; ++i) {
    const auto& pivot = rows[i];
    for (std::size_t below = i + 1; below < size; ++below) {
      auto& row = rows[below];
      const double factor = row[i] / pivot[i];
      for (std::size_t j = i; j <= size; ++j) row[j] -= factor * pivot[j];
    }
  }
  std::array<double, kSizeMax> solution{};
  for (std::size_t i = size; i-- > 0;) {
    double rest = 0;
    for (std::size_t j = i + 1; j < size; ++j) rest += rows[i][j] * solution[j];
    solution[i] = (rows[i][size] - rest) / rows[i][i];
  }
  return solution;
}

}  // namespace

OnlineFit::OnlineFit(std::span<const double> prior) : size_(prior.size()) {
  if (prior.empty() || prior.size() > kNumFeaturesMax) {
    throw std::invalid_argument("a fit has 1 to 4 coefficients");
  }
  for (std::size_t i = 0; i < size_; ++i) {
    prior_diagonal_[i] = prior[i] > 0 ? kPriorWeight / std::pow(prior[i], 2.0) : 0.0;
    prior_vector_[i] = prior_diagonal_[i] * prior[i];
    coefficients_[i] = prior[i];
  }
}

void OnlineFit::observe(std::span<const double> features, double measured) {
  if (features.size() != size_) throw std::invalid_argument("an observation has one feature for each coefficient");
  const double weight = 1.0 / std::pow(measured, 2.0);
  if (!std::isfinite(weight) || weight == 0) throw std::overflow_error("a measured value that cannot be weighed");
  for (std::size_t i = 0; i < size_; ++i) {
    const double weighted = weight * features[i];
    for (std::size_t j = 0; j < size_; ++j) matrix_[i][j] = kForgetting * matrix_[i][j] + weighted * features[j];
    vector_[i] = kForgetting * vector_[i] + weighted * measured;
  }
  ++num_observations_;
  solve();
}

// Solves for coefficients >= 0 by fixing the most negative one at zero until none is (active set; few features).
void OnlineFit::solve() noexcept {
  Values diagonal{};
  std::array<std::size_t, kNumFeaturesMax> active{};
  std::size_t num_active = 0;
  for (std::size_t i = 0; i < size_; ++i) {
    diagonal[i] = (1.0 + kRidge) * matrix_[i][i] + prior_diagonal_[i];
    if (diagonal[i] > 0) active[num_active++] = i;
  }
  coefficients_.fill(0);
  while (num_active > 0) {
    // Scaled to a diagonal of ones: features differ by nine decades.
    Values scale{};
    for (std::size_t a = 0; a < num_active; ++a) scale[a] = std::pow(diagonal[active[a]], -0.5);
    Rows rows{};
    for (std::size_t a = 0; a < num_active; ++a) {
      const std::size_t i = active[a];
      for (std::size_t b = 0; b < num_active; ++b) {
        rows[a][b] = a == b ? 1.0 : matrix_[i][active[b]] * scale[a] * scale[b];
      }
      rows[a][num_active] = (vector_[i] + prior_vector_[i]) * scale[a];
    }
    const Values scaled = eliminate(rows, num_active);
    const auto end = scaled.begin() + static_cast<std::ptrdiff_t>(num_active);
    const auto least = static_cast<std::size_t>(std::min_element(scaled.begin(), end) - scaled.begin());
    if (scaled[least] >= 0) {
      for (std::size_t a = 0; a < num_active; ++a) coefficients_[active[a]] = scaled[a] * scale[a];
      return;
    }
    std::copy(active.begin() + static_cast<std::ptrdiff_t>(least) + 1,
              active.begin() + static_cast<std::ptrdiff_t>(num_active),
              active.begin() + static_cast<std::ptrdiff_t>(least));
    --num_active;
  }
}

}  // namespace tiercel
