// Python's view of the ghost index.
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <algorithm>
#include <optional>

#include "arrays.hpp"
#include "bindings.hpp"
#include "ghost/ghost_index.hpp"

namespace nb = nanobind;

namespace tiercel::bindings {
namespace {

using Rates = nb::ndarray<nb::numpy, double, nb::shape<-1>>;

// Hashing more blocks than this, or touching more, takes longer than a few microseconds.
constexpr std::size_t kBlocksHashedHeld = 32;
constexpr std::size_t kBlocksHeld = 1024;

template <typename Method>
void with_blocks(GhostIndex& ghost, Sequence& sequence, std::optional<std::size_t> limit_blocks, Method method) {
  const std::size_t num_blocks = std::min(limit_blocks.value_or(sequence.num_blocks()), sequence.num_blocks());
  const MaybeReleaseGil release(num_blocks > kBlocksHeld ||
                                num_blocks > sequence.num_hashed_blocks() + kBlocksHashedHeld);
  (ghost.*method)(sequence, num_blocks);
}

Rates to_array(const std::vector<HitRate>& rates, double HitRate::*member) {
  auto* values = new double[rates.size()];
  nb::capsule owner(values, [](void* pointer) noexcept { delete[] static_cast<double*>(pointer); });
  std::transform(rates.begin(), rates.end(), values, [member](const HitRate& rate) { return rate.*member; });
  return Rates(values, {rates.size()}, owner);
}

}  // namespace

void bind_ghost(nb::module_& module) {
  nb::class_<GhostStats>(module, "GhostStats", nb::is_final())
      .def_ro("num_blocks", &GhostStats::num_blocks)
      .def_ro("sample_rate", &GhostStats::sample_rate)
      .def_ro("num_samples", &GhostStats::num_samples)
      .def_ro("num_hot", &GhostStats::num_hot)
      .def_ro("memory_bytes", &GhostStats::memory_bytes);

  nb::class_<GhostIndex>(module, "GhostIndex", nb::is_final())
      .def(
          "__init__",
          [](GhostIndex* ghost, double sample_rate, std::uint32_t num_samples_max, double hot_share,
             std::optional<std::uint64_t> span_blocks, std::optional<std::uint64_t> window_blocks,
             std::uint64_t resolution_blocks) {
            new (ghost)
                GhostIndex({sample_rate, num_samples_max, hot_share, span_blocks, window_blocks, resolution_blocks});
          },
          nb::kw_only(), nb::arg("sample_rate") = GhostOptions{}.sample_rate,
          nb::arg("num_samples_max") = GhostOptions{}.num_samples_max, nb::arg("hot_share") = GhostOptions{}.hot_share,
          nb::arg("span_blocks") = nb::none(), nb::arg("window_blocks") = nb::none(),
          nb::arg("resolution_blocks") = GhostOptions{}.resolution_blocks)
      .def(
          "observe",
          [](GhostIndex& self, Sequence& sequence, std::optional<std::size_t> limit_blocks) {
            with_blocks(self, sequence, limit_blocks, &GhostIndex::observe);
          },
          nb::arg("sequence"), nb::kw_only(), nb::arg("limit_blocks") = nb::none())
      // Part of every lookup: without names, defaults and None it takes half the time to be called.
      .def("observe_hashed",
           [](GhostIndex& self, Sequence& sequence, std::size_t limit_blocks) {
             const std::size_t num_blocks = std::min(limit_blocks, sequence.num_blocks());
             const MaybeReleaseGil release(sequence.num_hashed_blocks() > kBlocksHeld && num_blocks > kBlocksHeld);
             self.observe_hashed(sequence, num_blocks);
           })
      .def(
          "insert",
          [](GhostIndex& self, Sequence& sequence, std::optional<std::size_t> limit_blocks) {
            with_blocks(self, sequence, limit_blocks, &GhostIndex::insert);
          },
          nb::arg("sequence"), nb::kw_only(), nb::arg("limit_blocks") = nb::none())
      .def(
          "curve",
          [](const GhostIndex& self, const Vector<std::uint64_t>& capacities_blocks) {
            const std::vector<HitRate> rates = self.curve(as_span(capacities_blocks));
            return nb::make_tuple(to_array(rates, &HitRate::rate), to_array(rates, &HitRate::error));
          },
          nb::arg("capacities_blocks").noconvert())
      .def("stats", &GhostIndex::stats)
      .def("clear", &GhostIndex::clear);
}

}  // namespace tiercel::bindings
