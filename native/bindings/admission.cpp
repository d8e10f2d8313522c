// Python's view of the admission filter: a frequency sketch behind a lock, fed from sequences without copying keys.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <memory>
#include <mutex>

#include "admission/frequency_sketch.hpp"
#include "bindings.hpp"
#include "hashing/sequence.hpp"

namespace nb = nanobind;

namespace tiercel::bindings {
namespace {

using KeysIn = nb::ndarray<const std::uint8_t, nb::shape<-1, Key::kNumBytes>, nb::c_contig, nb::device::cpu>;
using CountsOut = nb::ndarray<nb::numpy, std::uint8_t, nb::shape<-1>>;

constexpr std::size_t kBlocksHeld = 256;  // more take longer than a few microseconds

class SketchHandle {
 public:
  explicit SketchHandle(std::size_t window) : sketch_(window) {}

  void see(Sequence& sequence, std::size_t stop) {
    const std::size_t end = std::min(stop, sequence.num_blocks());
    const std::size_t start = sequence.note_seen(end);
    for_keys(sequence, start, end, [&](std::span<const Key> keys) {
      for (const Key& key : keys) sketch_.see(key);
      return true;
    });
  }

  std::size_t count_leading(Sequence& sequence, std::size_t stop, std::uint32_t least) {
    std::size_t num_leading = 0;
    for_keys(sequence, 0, std::min(stop, sequence.num_blocks()), [&](std::span<const Key> keys) {
      const std::size_t count = sketch_.count_leading(keys, least);
      num_leading += count;
      return count == keys.size();
    });
    return num_leading;
  }

  CountsOut counts(const KeysIn& keys) {
    auto found = std::make_unique<std::uint8_t[]>(keys.shape(0));
    const auto* first = reinterpret_cast<const Key*>(keys.data());
    {
      const nb::gil_scoped_release release;
      const std::lock_guard lock(mutex_);
      for (std::size_t i = 0; i < keys.shape(0); ++i) found[i] = static_cast<std::uint8_t>(sketch_.count(first[i]));
    }
    std::uint8_t* kept = found.release();
    nb::capsule owner(kept, [](void* pointer) noexcept { delete[] static_cast<std::uint8_t*>(pointer); });
    return CountsOut(kept, {keys.shape(0)}, owner);
  }

  std::size_t memory_bytes() const noexcept { return sketch_.memory_bytes(); }

 private:
  // Call function(keys) for stretches of [start, stop) until it returns false. Keys are hashed outside the lock.
  template <typename Function>
  void for_keys(Sequence& sequence, std::size_t start, std::size_t stop, const Function& function) {
    if (start >= stop) return;
    if (stop - start <= kBlocksHeld && stop <= sequence.num_hashed_blocks()) {
      const std::unique_lock lock(mutex_, std::try_to_lock);
      if (lock.owns_lock()) return run(sequence, start, stop, function);
    }
    const nb::gil_scoped_release release;
    sequence.hash_to(stop);
    const std::lock_guard lock(mutex_);
    run(sequence, start, stop, function);
  }

  template <typename Function>
  static void run(Sequence& sequence, std::size_t start, std::size_t stop, const Function& function) {
    while (start < stop) {
      const std::span<const Key> keys = sequence.stable_keys(start, stop);
      if (!function(keys)) return;
      start += keys.size();
    }
  }

  std::mutex mutex_;
  FrequencySketch sketch_;
};

}  // namespace

void bind_admission(nb::module_& module) {
  nb::class_<SketchHandle>(module, "FrequencySketch", nb::is_final())
      .def(nb::init<std::size_t>(), nb::arg("window"))
      .def("see", &SketchHandle::see, nb::arg("sequence"), nb::arg("stop"))
      .def("count_leading", &SketchHandle::count_leading, nb::arg("sequence"), nb::arg("stop"), nb::arg("least"))
      .def("counts", &SketchHandle::counts, nb::arg("keys").noconvert())
      .def_prop_ro("memory_bytes", &SketchHandle::memory_bytes);
}

}  // namespace tiercel::bindings
