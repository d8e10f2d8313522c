// The Python module `tiercel._native`. Each bind_* function lives beside the part of the core that it exposes;
// a binding converts, releases the GIL, calls and converts back, and holds no logic of its own.
#include "bindings.hpp"

NB_MODULE(_native, module) {
  // A cache that is still open when the interpreter ends is closed by its exit hook, not by reference counting.
  nanobind::set_leak_warnings(false);
  module.doc() =
      "Native core of Tiercel: hashing, index, ghost index, passes over traces, simulated links, copies, checksums, "
      "disk I/O, GPU "
      "copies and the node's hot path.";
  tiercel::bindings::bind_hashing(module);
  tiercel::bindings::bind_memory(module);
  tiercel::bindings::bind_index(module);
  tiercel::bindings::bind_admission(module);
  tiercel::bindings::bind_ghost(module);
  tiercel::bindings::bind_curve(module);
  tiercel::bindings::bind_disk(module);
  tiercel::bindings::bind_cuda(module);
  tiercel::bindings::bind_telemetry(module);
  tiercel::bindings::bind_traces(module);
  tiercel::bindings::bind_simulate(module);
  tiercel::bindings::bind_node(module);
}
