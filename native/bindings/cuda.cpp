// Python's view of NVIDIA GPUs: devices, pinned memory, and copies between the two. Nothing here loads a driver before
// it is called.
#include <nanobind/nanobind.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>

#include <memory>
#include <optional>
#include <vector>

#include "arrays.hpp"
#include "bindings.hpp"
#include "cuda/copier.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace tiercel::bindings {
namespace {

using cuda::Copier;
using cuda::CopierOptions;
using cuda::Device;
using cuda::DeviceProgram;
using cuda::Direction;
using cuda::MemoryPool;
using cuda::PinnedRange;
using cuda::PoolMemory;
using cuda::PoolOptions;
using cuda::PoolUse;
using cuda::Transfer;
using cuda::Way;
using Pieces = nb::ndarray<const std::int64_t, nb::shape<-1, CopyProgram::kNumFields>, nb::c_contig, nb::device::cpu>;

// Pinned memory that Python unpins at a time of its choosing.
class PinnedMemory {
 public:
  PinnedMemory(std::shared_ptr<Device> device, std::uint64_t address, std::size_t num_bytes)
      : range_(std::in_place, std::move(device), reinterpret_cast<void*>(address), num_bytes) {}
  void close() { range_.reset(); }

 private:
  std::optional<PinnedRange> range_;
};

// A pool of device memory, as a mapping of what CacheMetrics and status show.
nb::dict use_of(const MemoryPool& pool) {
  PoolUse use{};
  {
    const nb::gil_scoped_release release;
    use = pool.use();
  }
  nb::dict found;
  found["used_bytes"] = use.used_bytes;
  found["used_bytes_high"] = use.used_bytes_high;
  found["held_bytes"] = use.held_bytes;
  found["held_bytes_high"] = use.held_bytes_high;
  return found;
}

std::shared_ptr<MemoryPool> make_pool(std::shared_ptr<Device> device, std::size_t reserve_bytes,
                                      std::size_t release_threshold_bytes) {
  const nb::gil_scoped_release release;
  return std::make_shared<MemoryPool>(
      std::move(device),
      PoolOptions{.reserve_bytes = reserve_bytes, .release_threshold_bytes = release_threshold_bytes});
}

std::shared_ptr<Copier> make_copier(std::shared_ptr<MemoryPool> pool, const nb::bytes& cubin,
                                    const CopierOptions& options) {
  const std::span<const std::byte> image(reinterpret_cast<const std::byte*>(cubin.c_str()), cubin.size());
  const nb::gil_scoped_release release;
  return std::make_shared<Copier>(std::move(pool), image, options);
}

std::shared_ptr<DeviceProgram> make_program(const Copier& copier, const Pieces& pieces, std::int64_t block_bytes) {
  const std::span<const CopyPiece> span(reinterpret_cast<const CopyPiece*>(pieces.data()), pieces.shape(0));
  const nb::gil_scoped_release release;
  return std::const_pointer_cast<DeviceProgram>(copier.make_program(span, block_bytes));
}

template <Direction direction>
std::unique_ptr<Transfer> start(const Copier& copier, std::shared_ptr<DeviceProgram> program,
                                const Vector<std::int64_t>& blocks, const Vector<std::uint64_t>& slots, Way way,
                                std::uintptr_t after) {
  const nb::gil_scoped_release release;
  return copier.start(direction, way, std::move(program), as_span(blocks), as_span(slots),
                      reinterpret_cast<cuda::EventHandle>(after));
}

}  // namespace

void bind_cuda(nb::module_& module) {
  using Release = nb::call_guard<nb::gil_scoped_release>;
  module.def(
      "cuda_driver_version", [] { return cuda::driver().version; }, Release());
  module.def(
      "cuda_has_batched_copies", [] { return cuda::driver().MemcpyBatchAsync != nullptr; }, Release());
  nb::class_<Device>(module, "CudaDevice", nb::is_final())
      .def(nb::init<int>(), "ordinal"_a, Release())
      .def_prop_ro("name", &Device::name)
      .def_prop_ro("memory_bytes", &Device::memory_bytes)
      .def_prop_ro("capability", &Device::capability)
      .def_prop_ro("num_processors", &Device::num_processors)
      .def_prop_ro("shares_host_addresses", &Device::shares_host_addresses)
      .def(
          "wait_event",
          [](const Device& device, std::uintptr_t event, double timeout_s) {
            return device.wait_event(reinterpret_cast<cuda::EventHandle>(event),
                                     std::chrono::duration<double>(timeout_s));
          },
          "event"_a, "timeout_s"_a, Release());
  nb::class_<PinnedMemory>(module, "PinnedMemory", nb::is_final())
      .def(nb::init<std::shared_ptr<Device>, std::uint64_t, std::size_t>(), "device"_a, "address"_a, "num_bytes"_a,
           Release())
      .def("close", &PinnedMemory::close, Release());
  nb::class_<MemoryPool>(module, "CudaMemoryPool", nb::is_final())
      .def(nb::new_(&make_pool), "device"_a, nb::kw_only(), "reserve_bytes"_a, "release_threshold_bytes"_a)
      .def("use", &use_of);
  nb::class_<PoolMemory>(module, "CudaMemory", nb::is_final())
      .def(nb::init<std::shared_ptr<MemoryPool>, std::size_t>(), "pool"_a, "num_bytes"_a, Release())
      .def_prop_ro("address", &PoolMemory::get);
  nb::enum_<Way>(module, "CudaWay")
      .value("KERNEL", Way::kKernel)
      .value("COPY_ENGINE", Way::kCopyEngine)
      .value("STAGED", Way::kStaged);
  nb::class_<CopierOptions>(module, "CudaCopierOptions", nb::is_final())
      .def(nb::init<int, int, int, int, std::size_t, std::size_t>(), nb::kw_only(), "num_ctas_gather"_a,
           "num_ctas_scatter"_a, "num_ctas_staged"_a, "num_streams"_a, "batch_copies"_a, "scratch_bytes"_a);
  nb::class_<DeviceProgram>(module, "CudaProgram", nb::is_final())
      .def_prop_ro("num_runs", [](const DeviceProgram& program) { return program.runs().size(); })
      .def_prop_ro("is_stageable", [](const DeviceProgram& program) { return program.span_bytes() != 0; })
      .def_prop_ro("access_bytes", &DeviceProgram::access_bytes);
  nb::class_<Transfer>(module, "CudaTransfer", nb::is_final())
      .def("wait", &Transfer::wait, Release())
      .def(
          "hold",
          [](Transfer& transfer, std::uintptr_t stream) {
            transfer.hold(reinterpret_cast<cuda::StreamHandle>(stream));
          },
          "stream"_a, Release());
  nb::class_<Copier>(module, "CudaCopier", nb::is_final())
      .def(nb::new_(&make_copier), "pool"_a, "cubin"_a, "options"_a)
      .def("program", &make_program, "pieces"_a.noconvert(), "block_bytes"_a)
      .def("start_gather", &start<Direction::kGather>, "program"_a, "blocks"_a.noconvert(), "targets"_a.noconvert(),
           "way"_a, "after"_a = 0)
      .def("start_scatter", &start<Direction::kScatter>, "program"_a, "blocks"_a.noconvert(), "sources"_a.noconvert(),
           "way"_a, "after"_a = 0);
}

}  // namespace tiercel::bindings
