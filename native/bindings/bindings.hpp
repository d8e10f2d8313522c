// What every binding file shares: nanobind itself and the list of the module's parts.
#pragma once

#include <nanobind/nanobind.h>

namespace tiercel::bindings {

void bind_hashing(nanobind::module_& module);
void bind_memory(nanobind::module_& module);
void bind_index(nanobind::module_& module);
void bind_admission(nanobind::module_& module);
void bind_ghost(nanobind::module_& module);
void bind_curve(nanobind::module_& module);
void bind_disk(nanobind::module_& module);
void bind_cuda(nanobind::module_& module);
void bind_telemetry(nanobind::module_& module);
void bind_traces(nanobind::module_& module);
void bind_simulate(nanobind::module_& module);
void bind_node(nanobind::module_& module);

}  // namespace tiercel::bindings
