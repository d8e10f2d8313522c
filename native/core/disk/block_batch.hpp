// One call's blocks as requests: small blocks that are neighbours in a file become one vectored transfer, and a large
// block becomes several, so that few large blocks fill a device's queue as well as many small ones.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "io_engine.hpp"

namespace tiercel::disk {

// A request and the blocks that it carries: positions [first, first + count) of BatchPlan::order; or, where num_parts
// is not 1, one part of the block at `first`. The parts of a block follow each other in order.
struct PlannedRequest {
  IoRequest io;
  std::size_t first = 0;
  std::size_t count = 0;
  std::uint32_t part = 0;
  std::uint32_t num_parts = 1;
};

struct BatchPlan {
  std::vector<std::size_t> order;  // block numbers of the call, sorted by file and offset
  std::vector<iovec> segments;     // what the requests point into
  std::vector<PlannedRequest> requests;
};

struct BatchGeometry {
  std::uint32_t num_files = 1;
  std::uint64_t slot_bytes = 0;
  std::uint64_t request_bytes_max = 0;  // blocks are merged up to it
  std::uint64_t part_bytes_max = 0;     // a slot that is larger is split into parts of this size; whole pages
};

// Plans the transfer of the given blocks of a call (`blocks`: indices into slots and addresses).
BatchPlan plan_batch(const BatchGeometry& geometry, std::span<const std::uint32_t> slots,
                     std::span<const std::uint64_t> addresses, std::vector<std::size_t> blocks);

}  // namespace tiercel::disk
