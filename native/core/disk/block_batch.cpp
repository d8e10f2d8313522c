#include "block_batch.hpp"

#include <algorithm>
#include <climits>
#include <utility>

namespace tiercel::disk {
namespace {

iovec segment_at(std::uint64_t address, std::uint64_t bytes) {
  return {reinterpret_cast<void*>(static_cast<std::uintptr_t>(address)), static_cast<std::size_t>(bytes)};
}

bool continues(const iovec& segment, std::uint64_t address) {
  return reinterpret_cast<std::uintptr_t>(segment.iov_base) + segment.iov_len == address;
}

// One block alone, in parts. `plan` has room for its segments.
void add_in_parts(BatchPlan& plan, const BatchGeometry& geometry, IoRequest whole, std::uint64_t address,
                  std::size_t position) {
  const auto num_parts =
      static_cast<std::uint32_t>((geometry.slot_bytes + geometry.part_bytes_max - 1) / geometry.part_bytes_max);
  for (std::uint32_t part = 0; part < num_parts; ++part) {
    const std::uint64_t start = part * geometry.part_bytes_max;
    const std::uint64_t bytes = std::min(geometry.part_bytes_max, geometry.slot_bytes - start);
    plan.segments.push_back(segment_at(address + start, bytes));
    plan.requests.push_back(
        {{whole.file, whole.offset + start, bytes, std::span(plan.segments).last(1)}, position, 1, part, num_parts});
  }
}

}  // namespace

BatchPlan plan_batch(const BatchGeometry& geometry, std::span<const std::uint32_t> slots,
                     std::span<const std::uint64_t> addresses, std::vector<std::size_t> blocks) {
  const auto place = [&](std::size_t block) {
    return std::pair(slots[block] % geometry.num_files, slots[block] / geometry.num_files);
  };
  BatchPlan plan;
  plan.order = std::move(blocks);
  std::stable_sort(plan.order.begin(), plan.order.end(),
                   [&](std::size_t left, std::size_t right) { return place(left) < place(right); });
  const bool splits = geometry.slot_bytes > geometry.part_bytes_max;
  const std::size_t parts_max = splits ? geometry.slot_bytes / geometry.part_bytes_max + 1 : 1;
  plan.segments.reserve(plan.order.size() * parts_max);  // never grows beyond, so requests may point into it

  std::size_t first_segment = 0;
  for (std::size_t position = 0; position < plan.order.size(); ++position) {
    const auto [file, row] = place(plan.order[position]);
    const std::uint64_t address = addresses[plan.order[position]];
    const std::uint64_t offset = std::uint64_t{row} * geometry.slot_bytes;
    if (splits) {
      add_in_parts(plan, geometry, {file, offset, 0, {}}, address, position);
      continue;
    }
    PlannedRequest* last = plan.requests.empty() ? nullptr : &plan.requests.back();
    const bool joins = last != nullptr && last->io.file == file && last->io.offset + last->io.bytes == offset &&
                       last->io.bytes + geometry.slot_bytes <= geometry.request_bytes_max &&
                       plan.segments.size() - first_segment < IOV_MAX;
    if (!joins) {
      first_segment = plan.segments.size();
      plan.requests.push_back({{file, offset, 0, {}}, position, 0, 0, 1});
      last = &plan.requests.back();
    }
    if (joins && continues(plan.segments.back(), address)) {
      plan.segments.back().iov_len += static_cast<std::size_t>(geometry.slot_bytes);
    } else {
      plan.segments.push_back(segment_at(address, geometry.slot_bytes));
    }
    last->io.bytes += geometry.slot_bytes;
    last->io.segments = std::span(plan.segments).subspan(first_segment);
    ++last->count;
  }
  return plan;
}

}  // namespace tiercel::disk
