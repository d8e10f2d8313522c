// Python's view of the trees of request traces.
#include <nanobind/ndarray.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "arrays.hpp"
#include "bindings.hpp"
#include "traces/trace_tree.hpp"

namespace nb = nanobind;

namespace tiercel::bindings {
namespace {

using Blocks = nb::ndarray<nb::numpy, std::int32_t, nb::shape<-1>>;
using BlockVector = Vector<std::int32_t>;

// Walking more blocks than this takes longer than a few microseconds.
constexpr std::size_t kBlocksHeld = 1024;

Blocks to_array(std::vector<std::int32_t> values) {
  auto held = std::make_unique<std::vector<std::int32_t>>(std::move(values));
  std::vector<std::int32_t>* numbers = held.release();
  nb::capsule owner(numbers, [](void* pointer) noexcept { delete static_cast<std::vector<std::int32_t>*>(pointer); });
  return Blocks(numbers->data(), {numbers->size()}, owner);
}

// Readers have names as lists of Python's integers; through numpy they cost several times as much. A negative one is
// taken as its two's complement. OverflowError beyond 64 bits.
std::vector<std::uint64_t> to_names(const nb::list& given) {
  std::vector<std::uint64_t> names(given.size());
  for (std::size_t i = 0; i < names.size(); ++i) {
    PyObject* item = PyList_GET_ITEM(given.ptr(), static_cast<Py_ssize_t>(i));
    names[i] = PyLong_AsUnsignedLongLong(item);
    if (names[i] == static_cast<std::uint64_t>(-1) && PyErr_Occurred()) {
      if (!PyErr_ExceptionMatches(PyExc_OverflowError)) throw nb::python_error();
      PyErr_Clear();
      names[i] = static_cast<std::uint64_t>(PyLong_AsLongLong(item));
      if (names[i] == static_cast<std::uint64_t>(-1) && PyErr_Occurred()) throw nb::python_error();
    }
  }
  return names;
}

template <typename Work>
Blocks without_gil(std::size_t size, Work work) {
  std::vector<std::int32_t> values;
  {
    const MaybeReleaseGil release(size > kBlocksHeld);
    values = work();
  }
  return to_array(std::move(values));
}

}  // namespace

void bind_traces(nb::module_& module) {
  nb::class_<TraceTree>(module, "TraceTree", nb::is_final())
      .def(nb::init<>())
      .def(
          "add",
          [](TraceTree& self, const nb::list& names, std::int32_t scope) { return self.add(to_names(names), scope); },
          nb::arg("names"), nb::arg("scope") = 0)
      .def(
          "add",
          [](TraceTree& self, const Vector<std::uint64_t>& names, std::int32_t scope) {
            return self.add(as_span(names), scope);
          },
          nb::arg("names").noconvert(), nb::arg("scope") = 0)
      .def_prop_ro("num_blocks", &TraceTree::num_blocks)
      .def_prop_ro("memory_bytes", &TraceTree::memory_bytes)
      .def("parents", [](const TraceTree& self) { return to_array(self.parents()); });

  module.def(
      "trace_depths",
      [](const BlockVector& parents) {
        return without_gil(parents.size(), [&] { return trace_depths(as_span(parents)); });
      },
      nb::arg("parents").noconvert());
  module.def(
      "trace_first_uses",
      [](const BlockVector& parents, const BlockVector& leaves) {
        return without_gil(parents.size() + leaves.size(),
                           [&] { return trace_first_uses(as_span(parents), as_span(leaves)); });
      },
      nb::arg("parents").noconvert(), nb::arg("leaves").noconvert());
  module.def(
      "trace_paths",
      [](const BlockVector& parents, const BlockVector& depths, const BlockVector& leaves) {
        return without_gil(leaves.size() > 1 ? kBlocksHeld + 1 : 0,
                           [&] { return trace_paths(as_span(parents), as_span(depths), as_span(leaves)); });
      },
      nb::arg("parents").noconvert(), nb::arg("depths").noconvert(), nb::arg("leaves").noconvert());
}

}  // namespace tiercel::bindings
