#include "bindings.hpp"

namespace tiercel::bindings {

void bind_hashing(nanobind::module_& module) { (void)module; }

}  // namespace tiercel::bindings
