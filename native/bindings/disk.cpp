#include "bindings.hpp"

namespace tiercel::bindings {

void bind_disk(nanobind::module_& module) { (void)module; }

}  // namespace tiercel::bindings
