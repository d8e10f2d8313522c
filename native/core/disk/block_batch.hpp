// One call's blocks, merged into requests: blocks that are neighbours in a file become one vectored transfer.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "io_engine.hpp"

namespace tiercel::disk {

// A request and the blocks that it carries: positions [first, first + count) of BatchPlan::order.
struct PlannedRequest {
  IoRequest io;
  std::size_t first = 0;
  std::size_t count = 0;
};

struct BatchPlan {
  std::vector<std::size_t> order;  // block numbers of the call, sorted by file and offset
  std::vector<iovec> segments;     // what the requests point into
  std::vector<PlannedRequest> requests;
};

struct BatchGeometry {
  std::uint32_t num_files = 1;
  std::uint64_t slot_bytes = 0;
  std::uint64_t request_bytes_max = 0;  // a request is never split below one slot
};

// Plans the transfer of the given blocks of a call (`blocks`: indices into slots and addresses).
BatchPlan plan_batch(const BatchGeometry& geometry, std::span<const std::uint32_t> slots,
                     std::span<const std::uint64_t> addresses, std::vector<std::size_t> blocks);

}  // namespace tiercel::disk
