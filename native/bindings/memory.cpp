// Python's view of checksums, shared memory and copies, and of what this build and processor offer.
#include <nanobind/stl/string.h>

#include <cstring>
#include <system_error>

#include "arrays.hpp"
#include "bindings.hpp"
#include "cpu.hpp"
#include "memory/arena.hpp"
#include "memory/checksum.hpp"
#include "memory/copy.hpp"
#include "memory/memory_limits.hpp"
#include "version.hpp"

namespace nb = nanobind;

namespace tiercel::bindings {
namespace {

// Below this many bytes, a few microseconds of work, letting go of the GIL costs more than it gives.
constexpr std::size_t kBytesHeld = 64 * 1024;

using Pieces = nb::ndarray<const std::int64_t, nb::shape<-1, CopyProgram::kNumFields>, nb::c_contig, nb::device::cpu>;

nb::dict cpu_features_as_dict() {
  const CpuFeatures& features = cpu_features();
  nb::dict dict;
  dict["sha_ni"] = features.sha_ni;
  dict["avx2"] = features.avx2;
  dict["avx512f"] = features.avx512f;
  return dict;
}

// Holds a buffer of Python's for as long as its bytes are read.
class BufferView {
 public:
  explicit BufferView(nb::handle object) {
    if (PyObject_GetBuffer(object.ptr(), &view_, PyBUF_C_CONTIGUOUS) != 0) throw nb::python_error();
  }
  ~BufferView() { PyBuffer_Release(&view_); }
  BufferView(const BufferView&) = delete;
  BufferView& operator=(const BufferView&) = delete;

  std::span<const std::byte> bytes() const noexcept {
    return {static_cast<const std::byte*>(view_.buf), static_cast<std::size_t>(view_.len)};
  }

 private:
  Py_buffer view_{};
};

std::uint64_t checksum_of_buffer(nb::handle data, std::uint64_t seed) {
  const BufferView view(data);
  const MaybeReleaseGil release(view.bytes().size() > kBytesHeld);
  return checksum(view.bytes(), seed);
}

void construct_program(CopyProgram* program, const Pieces& pieces, std::int64_t block_bytes) {
  const auto* first = reinterpret_cast<const CopyPiece*>(pieces.data());
  new (program) CopyProgram({first, pieces.shape(0)}, block_bytes);
}

void gather(const CopyProgram& program, const Vector<std::int64_t>& blocks, const Vector<std::uint64_t>& targets,
            int num_threads) {
  const MaybeReleaseGil release(program.bytes_per_block() * blocks.size() > kBytesHeld);
  program.gather(as_span(blocks), as_span(targets), num_threads);
}

void scatter(const CopyProgram& program, const Vector<std::int64_t>& blocks, const Vector<std::uint64_t>& sources,
             int num_threads) {
  const MaybeReleaseGil release(program.bytes_per_block() * blocks.size() > kBytesHeld);
  program.scatter(as_span(blocks), as_span(sources), num_threads);
}

void copy_blocks_at(const Vector<std::uint64_t>& sources, const Vector<std::uint64_t>& targets, std::size_t block_bytes,
                    int num_threads) {
  const MaybeReleaseGil release(block_bytes * sources.size() > kBytesHeld);
  copy_blocks(as_span(sources), as_span(targets), block_bytes, num_threads);
}

// std::system_error becomes OSError(errno, message), which Python turns into the subclass that fits the errno.
void translate_system_error(const std::exception_ptr& pointer, void*) {
  try {
    std::rethrow_exception(pointer);
  } catch (const std::system_error& error) {
    const nb::tuple arguments = nb::make_tuple(error.code().value(), error.what());
    PyErr_SetObject(PyExc_OSError, arguments.ptr());
  }
}

}  // namespace

void bind_memory(nb::module_& module) {
  nb::register_exception_translator(&translate_system_error);
  module.def("built_with_io_uring", &built_with_io_uring);
  module.def("cpu_features", &cpu_features_as_dict);
  module.def("return_freed_memory", &return_freed_memory, nb::call_guard<nb::gil_scoped_release>());
  module.def("checksum", &checksum_of_buffer, nb::arg("data"), nb::arg("seed") = 0);
  nb::class_<Arena>(module, "Arena", nb::is_final())
      .def(
          "__init__",
          [](Arena* arena, std::size_t num_bytes, bool hugepages, bool shared) {
            new (arena) Arena({.num_bytes = num_bytes, .hugepages = hugepages, .shared = shared});
          },
          nb::arg("num_bytes"), nb::kw_only(), nb::arg("hugepages") = true, nb::arg("shared") = true)
      .def_prop_ro("address", [](const Arena& arena) { return reinterpret_cast<std::uintptr_t>(arena.data()); })
      .def_prop_ro("num_bytes", &Arena::num_bytes)
      .def_prop_ro("fd", &Arena::fd)
      .def_prop_ro("huge", &Arena::huge)
      .def("prefault", &Arena::prefault, nb::arg("start"), nb::arg("stop"), nb::call_guard<nb::gil_scoped_release>())
      .def("close", &Arena::close, nb::call_guard<nb::gil_scoped_release>());
  nb::class_<CopyProgram>(module, "CopyProgram", nb::is_final())
      .def("__init__", &construct_program, nb::arg("pieces").noconvert(), nb::arg("block_bytes"))
      .def("gather", &gather, nb::arg("blocks").noconvert(), nb::arg("targets").noconvert(), nb::arg("num_threads") = 1)
      .def("scatter", &scatter, nb::arg("blocks").noconvert(), nb::arg("sources").noconvert(),
           nb::arg("num_threads") = 1);
  module.def("copy_blocks", &copy_blocks_at, nb::arg("sources").noconvert(), nb::arg("targets").noconvert(),
             nb::arg("block_bytes"), nb::arg("num_threads") = 1);
}

}  // namespace tiercel::bindings
