#include "cuda/memory_pool.hpp"

#include <algorithm>
#include <bit>

namespace tiercel::cuda {
namespace {

constexpr int kPinned = 1;            // CU_MEM_ALLOCATION_TYPE_PINNED
constexpr int kOnDevice = 1;          // CU_MEM_LOCATION_TYPE_DEVICE
constexpr int kReleaseThreshold = 4;  // CU_MEMPOOL_ATTR_...
constexpr int kHeldCurrent = 5;
constexpr int kHeldHigh = 6;
constexpr int kUsedCurrent = 7;
constexpr int kUsedHigh = 8;
constexpr unsigned kPortable = 1;   // CU_MEMHOSTALLOC_PORTABLE
constexpr unsigned kDeviceMap = 2;  // CU_MEMHOSTALLOC_DEVICEMAP
constexpr std::size_t kSmallestBufferBytes = 64 * 1024;

}  // namespace

MemoryPool::MemoryPool(std::shared_ptr<const Device> device, const PoolOptions& options)
    : device_(std::move(device)), stream_(device_, Priority::kLeast) {
  const ContextScope scope(*device_);
  PoolProperties properties{};
  properties.allocation_type = kPinned;
  properties.location = {kOnDevice, device_->ordinal()};
  check(driver().MemPoolCreate(&handle_, &properties), "cuMemPoolCreate");
  try {
    std::uint64_t threshold = options.release_threshold_bytes;
    check(driver().MemPoolSetAttribute(handle_, kReleaseThreshold, &threshold), "cuMemPoolSetAttribute");
    if (options.reserve_bytes == 0) return;
    give_back(take(options.reserve_bytes, stream()), stream());
    check(driver().StreamSynchronize(stream()), "cuStreamSynchronize");
    std::uint64_t none = 0;  // what was used for warming up is no use
    check(driver().MemPoolSetAttribute(handle_, kUsedHigh, &none), "cuMemPoolSetAttribute");
  } catch (...) {
    driver().MemPoolDestroy(handle_);
    throw;
  }
}

MemoryPool::~MemoryPool() {
  in_context(*device_, [this] {
    driver().StreamSynchronize(stream());
    driver().MemPoolDestroy(handle_);
  });
}

DevicePointer MemoryPool::take(std::size_t num_bytes, StreamHandle stream) const {
  DevicePointer pointer = 0;
  check(driver().MemAllocFromPoolAsync(&pointer, num_bytes, handle_, stream), "cuMemAllocFromPoolAsync");
  return pointer;
}

void MemoryPool::give_back(DevicePointer pointer, StreamHandle stream) const noexcept {
  driver().MemFreeAsync(pointer, stream);
}

PoolUse MemoryPool::use() const {
  const ContextScope scope(*device_);
  return {.used_bytes = attribute(kUsedCurrent),
          .used_bytes_high = attribute(kUsedHigh),
          .held_bytes = attribute(kHeldCurrent),
          .held_bytes_high = attribute(kHeldHigh)};
}

std::uint64_t MemoryPool::attribute(int number) const {
  std::uint64_t value = 0;
  check(driver().MemPoolGetAttribute(handle_, number, &value), "cuMemPoolGetAttribute");
  return value;
}

PoolMemory::PoolMemory(std::shared_ptr<const MemoryPool> pool, std::size_t num_bytes) : pool_(std::move(pool)) {
  const ContextScope scope(*pool_->device());
  pointer_ = pool_->take(num_bytes, pool_->stream());
  check(driver().StreamSynchronize(pool_->stream()), "cuStreamSynchronize");
}

PoolMemory::~PoolMemory() {
  in_context(*pool_->device(), [this] { pool_->give_back(pointer_, pool_->stream()); });
}

MirroredBuffer::~MirroredBuffer() { release(); }

void MirroredBuffer::reserve(std::size_t num_bytes) {
  if (num_bytes <= capacity_bytes_) return;
  release();
  const std::size_t capacity = std::bit_ceil(std::max(num_bytes, kSmallestBufferBytes));
  const ContextScope scope(*pool_->device());
  check(driver().MemHostAlloc(&host_, capacity, kPortable | kDeviceMap), "cuMemHostAlloc");
  pointer_ = pool_->take(capacity, pool_->stream());
  check(driver().StreamSynchronize(pool_->stream()), "cuStreamSynchronize");
  capacity_bytes_ = capacity;
}

void MirroredBuffer::upload(std::size_t num_bytes, StreamHandle stream) const {
  const auto source = reinterpret_cast<DevicePointer>(host_);
  check(driver().MemcpyAsync(pointer_, source, num_bytes, stream), "cuMemcpyAsync");
}

void MirroredBuffer::release() noexcept {
  in_context(*pool_->device(), [this] {
    if (host_ != nullptr) driver().MemFreeHost(host_);
    if (pointer_ != 0) pool_->give_back(pointer_, pool_->stream());
  });
  host_ = nullptr;
  pointer_ = 0;
  capacity_bytes_ = 0;
}

}  // namespace tiercel::cuda
