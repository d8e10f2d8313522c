// Python's view of the fits that costs are learnt by. Calls take less than a microsecond, so they keep the GIL.
#include <nanobind/stl/vector.h>

#include <vector>

#include "bindings.hpp"
#include "costs/online_fit.hpp"

namespace nb = nanobind;

namespace tiercel::bindings {

void bind_costs(nb::module_& module) {
  nb::class_<OnlineFit>(module, "OnlineFit", nb::is_final())
      .def(
          "__init__", [](OnlineFit* fit, const std::vector<double>& prior) { new (fit) OnlineFit(prior); },
          nb::arg("prior"))
      .def_prop_ro("num_observations", &OnlineFit::num_observations)
      .def_prop_ro("coefficients",
                   [](const OnlineFit& self) {
                     return std::vector<double>(self.coefficients().begin(), self.coefficients().end());
                   })
      .def(
          "observe",
          [](OnlineFit& self, const std::vector<double>& features, double measured) {
            self.observe(features, measured);
          },
          nb::arg("features"), nb::arg("measured"));
}

}  // namespace tiercel::bindings
