// Python's view of the passes over whole traces. All of them run without the GIL and take it back now and then to see
// whether the user wants them to end.
#include <nanobind/ndarray.h>
#include <nanobind/stl/unique_ptr.h>

#include <memory>
#include <utility>
#include <vector>

#include "arrays.hpp"
#include "bindings.hpp"
#include "curve/belady.hpp"
#include "curve/block_tree.hpp"
#include "curve/lru_pass.hpp"
#include "curve/sampled_pass.hpp"

namespace nb = nanobind;

namespace tiercel::bindings {
namespace {

template <typename Item>
using Array = nb::ndarray<nb::numpy, Item, nb::ndim<1>>;
using Cube = nb::ndarray<nb::numpy, double, nb::ndim<3>>;
using Table = nb::ndarray<nb::numpy, double, nb::ndim<2>>;

template <typename Item>
Array<Item> to_array(std::vector<Item> values) {
  auto owned = std::make_unique<std::vector<Item>>(std::move(values));
  Item* data = owned->data();
  const std::size_t size = owned->size();
  nb::capsule owner(owned.release(), [](void* pointer) noexcept { delete static_cast<std::vector<Item>*>(pointer); });
  return Array<Item>(data, {size}, owner);
}

void check_signals() {
  const nb::gil_scoped_acquire acquire;
  if (PyErr_CheckSignals() != 0) throw nb::python_error();
}

nb::tuple lru_hits(const Vector<BlockId>& parents, const Vector<BlockId>& leaves,
                   const Vector<std::int64_t>& input_tokens, std::int64_t tokens_per_block) {
  LruHits hits;
  {
    const nb::gil_scoped_release release;
    LruPass pass(as_span(parents), tokens_per_block);
    pass.run(as_span(leaves), as_span(input_tokens), check_signals);
    hits = pass.hits();
  }
  return nb::make_tuple(to_array(std::move(hits.blocks)), to_array(std::move(hits.request_shares)),
                        to_array(std::move(hits.tail_ranks)), to_array(std::move(hits.tail_missing)));
}

std::unique_ptr<SampledHits> sampled_lru_hits(const Vector<BlockId>& parents, const Vector<std::uint8_t>& groups,
                                              const Vector<BlockId>& leaves, const Vector<double>& shares,
                                              const Vector<double>& leaf_tokens, double rate, double tokens_per_block) {
  const nb::gil_scoped_release release;
  SampledPass pass(as_span(parents), as_span(groups), rate, tokens_per_block);
  pass.run({as_span(leaves), as_span(shares), as_span(leaf_tokens)}, check_signals);
  return std::make_unique<SampledHits>(pass.hits());
}

// [weight, group]
Table uses_of(const SampledHits& hits) {
  auto* values = new double[kNumWeights * SampledHits::kNumGroups];
  nb::capsule owner(values, [](void* pointer) noexcept { delete[] static_cast<double*>(pointer); });
  for (std::size_t group = 0; group < SampledHits::kNumGroups; ++group) {
    for (std::size_t weight = 0; weight < kNumWeights; ++weight) {
      values[weight * SampledHits::kNumGroups + group] = hits.uses(group)[weight];
    }
  }
  return Table(values, {kNumWeights, SampledHits::kNumGroups}, owner);
}

// [weight, group, capacity]
Cube hits_of(const SampledHits& hits, const Vector<std::uint64_t>& capacities) {
  const std::size_t count = capacities.size();
  auto* values = new double[kNumWeights * SampledHits::kNumGroups * count];
  nb::capsule owner(values, [](void* pointer) noexcept { delete[] static_cast<double*>(pointer); });
  for (std::size_t group = 0; group < SampledHits::kNumGroups; ++group) {
    for (std::size_t at = 0; at < count; ++at) {
      const Weights here = hits.hits(group, as_span(capacities)[at]);
      for (std::size_t weight = 0; weight < kNumWeights; ++weight) {
        values[(weight * SampledHits::kNumGroups + group) * count + at] = here[weight];
      }
    }
  }
  return Cube(values, {kNumWeights, SampledHits::kNumGroups, count}, owner);
}

}  // namespace

void bind_curve(nb::module_& module) {
  module.attr("SAMPLE_PARTS") = SampledHits::kNumParts;
  module.def(
      "count_uses",
      [](const Vector<BlockId>& parents, const Vector<BlockId>& leaves) {
        std::vector<std::int32_t> uses;
        {
          const nb::gil_scoped_release release;
          uses = count_uses(as_span(parents), as_span(leaves));
        }
        return to_array(std::move(uses));
      },
      nb::arg("parents").noconvert(), nb::arg("leaves").noconvert());
  module.def(
      "nearest_kept",
      [](const Vector<BlockId>& parents, const Vector<std::uint8_t>& kept) {
        std::vector<BlockId> nearest;
        {
          const nb::gil_scoped_release release;
          nearest = nearest_kept(as_span(parents), as_span(kept));
        }
        return to_array(std::move(nearest));
      },
      nb::arg("parents").noconvert(), nb::arg("kept").noconvert());
  module.def("lru_hits", &lru_hits, nb::arg("parents").noconvert(), nb::arg("leaves").noconvert(),
             nb::arg("input_tokens").noconvert(), nb::arg("tokens_per_block"));
  nb::class_<SampledHits>(module, "SampledHits", nb::is_final())
      .def("uses", &uses_of)
      .def("hits", &hits_of, nb::arg("capacities").noconvert());
  module.def("sampled_lru_hits", &sampled_lru_hits, nb::arg("parents").noconvert(), nb::arg("groups").noconvert(),
             nb::arg("leaves").noconvert(), nb::arg("shares").noconvert(), nb::arg("leaf_tokens").noconvert(),
             nb::kw_only(), nb::arg("rate"), nb::arg("tokens_per_block"));
  nb::class_<Belady>(module, "Belady", nb::is_final())
      .def(
          "__init__",
          [](Belady* belady, const Vector<BlockId>& parents, const Vector<BlockId>& leaves) {
            const nb::gil_scoped_release release;
            new (belady) Belady(as_span(parents), as_span(leaves), check_signals);
          },
          nb::arg("parents").noconvert(), nb::arg("leaves").noconvert())
      .def(
          "hits",
          [](const Belady& self, std::size_t capacity) {
            std::vector<std::int32_t> hits;
            {
              const nb::gil_scoped_release release;
              hits = self.hits(capacity, check_signals);
            }
            return to_array(std::move(hits));
          },
          nb::arg("capacity"));
}

}  // namespace tiercel::bindings
