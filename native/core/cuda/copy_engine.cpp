#include "cuda/copier.hpp"

namespace tiercel::cuda {
namespace {

constexpr int kStreamOrder = 1;          // CU_MEMCPY_SRC_ACCESS_ORDER_STREAM
constexpr unsigned kOverlapCompute = 1;  // CU_MEMCPY_FLAG_PREFER_OVERLAP_WITH_COMPUTE

}  // namespace

CopyBatch::CopyBatch(std::size_t capacity, StreamHandle stream) : capacity_(capacity), stream_(stream) {
  sources_.reserve(capacity);
  targets_.reserve(capacity);
  sizes_.reserve(capacity);
}

void CopyBatch::add(DevicePointer target, DevicePointer source, std::size_t num_bytes) {
  if (may_merge_ && !sizes_.empty() && targets_.back() + sizes_.back() == target &&
      sources_.back() + sizes_.back() == source) {
    sizes_.back() += num_bytes;
    return;
  }
  if (sizes_.size() == capacity_) flush();
  may_merge_ = true;
  targets_.push_back(target);
  sources_.push_back(source);
  sizes_.push_back(num_bytes);
}

void CopyBatch::flush() {
  if (sizes_.empty()) return;
  if (driver().MemcpyBatchAsync != nullptr) {
    BatchAttributes attributes{kStreamOrder, {0, 0}, {0, 0}, kOverlapCompute};
    std::size_t first = 0;
    std::size_t failed = 0;
    check(driver().MemcpyBatchAsync(targets_.data(), sources_.data(), sizes_.data(), sizes_.size(), &attributes, &first,
                                    1, &failed, stream_),
          "cuMemcpyBatchAsync");
  } else {
    for (std::size_t i = 0; i < sizes_.size(); ++i) {
      check(driver().MemcpyAsync(targets_[i], sources_[i], sizes_[i], stream_), "cuMemcpyAsync");
    }
  }
  targets_.clear();
  sources_.clear();
  sizes_.clear();
}

void queue_copies(Direction direction, const DeviceProgram& program, std::span<const std::int64_t> blocks,
                  std::span<const std::uint64_t> slots, std::size_t batch_copies, StreamHandle stream) {
  CopyBatch batch(batch_copies, stream);
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    for (const Run& run : program.runs()) {
      const DevicePointer engine = run.engine + static_cast<std::uint64_t>(blocks[i] * run.block_stride);
      const DevicePointer slot = slots[i] + run.slot;
      if (direction == Direction::kGather) {
        batch.add(slot, engine, run.num_bytes);
      } else {
        batch.add(engine, slot, run.num_bytes);
      }
    }
    batch.end_block();
  }
  batch.flush();
}

}  // namespace tiercel::cuda
