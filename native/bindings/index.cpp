#include "bindings.hpp"

namespace tiercel::bindings {

void bind_index(nanobind::module_& module) { (void)module; }

}  // namespace tiercel::bindings
