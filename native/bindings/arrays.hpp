// How the bindings take arrays, and when they let go of the GIL.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <optional>
#include <span>

namespace tiercel::bindings {

// A one-dimensional C-contiguous array in host memory that the callee only reads. Other dtypes are a TypeError when the
// argument is marked noconvert.
template <typename Item>
using Vector = nanobind::ndarray<const Item, nanobind::ndim<1>, nanobind::c_contig, nanobind::device::cpu>;

template <typename Item>
std::span<const Item> as_span(const Vector<Item>& array) noexcept {
  return {array.data(), array.size()};
}

// Lets go of the GIL for its lifetime if the work at hand is long enough to be worth it.
class MaybeReleaseGil {
 public:
  explicit MaybeReleaseGil(bool release) {
    if (release) release_.emplace();
  }

 private:
  std::optional<nanobind::gil_scoped_release> release_;
};

}  // namespace tiercel::bindings
