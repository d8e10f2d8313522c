#include "bindings.hpp"

namespace tiercel::bindings {

void bind_memory(nanobind::module_& module) { (void)module; }

}  // namespace tiercel::bindings
