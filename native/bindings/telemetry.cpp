// Python's view of the counts of lookups.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <stdexcept>
#include <string_view>
#include <utility>
#include <vector>

#include "bindings.hpp"
#include "telemetry/lookup_tally.hpp"

namespace nb = nanobind;

namespace tiercel::bindings {
namespace {

constexpr std::size_t kNumTiersMax = 8;

// What is not as it should be is refused before anything is counted, and nothing here lets go of the GIL under the
// lock.
void observe(LookupTally& self, double seconds, std::uint64_t num_tokens, std::uint64_t tokens_per_block,
             const nb::sequence& hits, std::uint64_t num_pending, std::uint64_t num_declined) {
  std::array<nb::object, kNumTiersMax> pairs;  // they keep the names
  std::array<TierHits, kNumTiersMax> seen;
  std::size_t num_seen = 0;
  for (const nb::handle hit : hits) {
    if (num_seen == seen.size()) throw std::invalid_argument("hits: more tiers than there are");
    const auto pair = nb::cast<nb::tuple>(hit);
    pairs[num_seen] = pair;
    seen[num_seen++] = {nb::cast<std::string_view>(pair[0]), nb::cast<std::uint64_t>(pair[1])};
  }
  self.observe({seconds, num_tokens, tokens_per_block, num_pending, num_declined}, [&](const auto& count) {
    for (std::size_t at = 0; at < num_seen; ++at) count(seen[at]);
  });
}

nb::tuple counts_of(const TallyHistogram& histogram) { return nb::tuple(nb::cast(histogram.counts())); }

nb::dict hits_of(const LookupCounts& counts) {
  nb::dict hits;
  for (const auto& [tier, histogram] : counts.hits) hits[tier.c_str()] = histogram;
  return hits;
}

}  // namespace

void bind_telemetry(nb::module_& module) {
  nb::class_<TallyHistogram>(module, "TallyHistogram", nb::is_final())
      .def_prop_ro("counts", &counts_of)
      .def_prop_ro("total", &TallyHistogram::total);
  nb::class_<LookupCounts>(module, "LookupCounts", nb::is_final())
      .def_ro("num_missed", &LookupCounts::num_missed)
      .def_ro("num_partial", &LookupCounts::num_partial)
      .def_ro("num_full", &LookupCounts::num_full)
      .def_ro("num_tokens", &LookupCounts::num_tokens)
      .def_ro("num_blocks", &LookupCounts::num_blocks)
      .def_ro("num_pending", &LookupCounts::num_pending)
      .def_ro("num_declined", &LookupCounts::num_declined)
      .def_ro("tokens_per_block", &LookupCounts::tokens_per_block)
      .def_ro("seconds", &LookupCounts::seconds)
      .def_ro("hit_ratio", &LookupCounts::hit_ratio)
      .def_prop_ro("hits", &hits_of);
  nb::class_<LookupTally>(module, "LookupTally", nb::is_final())
      .def(
          "__init__",
          [](LookupTally* self, std::vector<double> seconds, std::vector<double> hit_ratio,
             std::vector<double> hit_blocks) {
            new (self) LookupTally({std::move(seconds), std::move(hit_ratio), std::move(hit_blocks)});
          },
          nb::kw_only(), nb::arg("seconds_bounds"), nb::arg("hit_ratio_bounds"), nb::arg("hit_blocks_bounds"))
      .def("observe", &observe, nb::arg("seconds"), nb::arg("num_tokens"), nb::arg("tokens_per_block"), nb::arg("hits"),
           nb::arg("num_pending"), nb::arg("num_declined"))
      .def("read", &LookupTally::read);
}

}  // namespace tiercel::bindings
