// Device memory for what copies need beside the blocks: tables, argument lists and scratch, from a stream-ordered pool.
//
// Taking and giving back are steps of a stream: neither waits for the device, and no cudaMalloc stands in the path of a
// copy or breaks an engine's graph capture.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "cuda/device.hpp"

namespace tiercel::cuda {

struct PoolOptions {
  std::size_t reserve_bytes = 0;                     // taken once at the start, so that the first copies need not wait
  std::size_t release_threshold_bytes = 128u << 20;  // that the pool keeps when nothing uses it
};

// Bytes that are lent and bytes that the pool holds of the device, now and at most since the start.
struct PoolUse {
  std::uint64_t used_bytes;
  std::uint64_t used_bytes_high;
  std::uint64_t held_bytes;
  std::uint64_t held_bytes_high;
};

// Thread-safe. Lives until everything taken from it was given back.
class MemoryPool {
 public:
  MemoryPool(std::shared_ptr<const Device> device, const PoolOptions& options);  // DriverError if there is no room
  ~MemoryPool();
  MemoryPool(const MemoryPool&) = delete;
  MemoryPool& operator=(const MemoryPool&) = delete;

  const std::shared_ptr<const Device>& device() const noexcept { return device_; }
  // Both are steps of a stream; the device's context is current. DriverError if the device has no room.
  DevicePointer take(std::size_t num_bytes, StreamHandle stream) const;
  void give_back(DevicePointer pointer, StreamHandle stream) const noexcept;
  // The stream for what lasts: whoever takes on it waits for it before another stream uses the memory.
  StreamHandle stream() const noexcept { return stream_.get(); }
  PoolUse use() const;

 private:
  std::uint64_t attribute(int number) const;

  std::shared_ptr<const Device> device_;
  Stream stream_;
  PoolHandle handle_ = nullptr;
};

// Memory on the device that lasts until it is destroyed; contents are undefined. DriverError if there is no room.
class PoolMemory {
 public:
  PoolMemory(std::shared_ptr<const MemoryPool> pool, std::size_t num_bytes);
  ~PoolMemory();
  PoolMemory(const PoolMemory&) = delete;
  PoolMemory& operator=(const PoolMemory&) = delete;
  DevicePointer get() const noexcept { return pointer_; }

 private:
  std::shared_ptr<const MemoryPool> pool_;
  DevicePointer pointer_ = 0;
};

// Memory on the device and pinned memory of the same size beside it, to fill and copy over.
class MirroredBuffer {
 public:
  explicit MirroredBuffer(std::shared_ptr<const MemoryPool> pool) : pool_(std::move(pool)) {}
  ~MirroredBuffer();
  MirroredBuffer(const MirroredBuffer&) = delete;
  MirroredBuffer& operator=(const MirroredBuffer&) = delete;

  // Contents are lost. No work that uses the buffer may be under way.
  void reserve(std::size_t num_bytes);
  void upload(std::size_t num_bytes, StreamHandle stream) const;
  std::byte* host() const noexcept { return static_cast<std::byte*>(host_); }
  DevicePointer device() const noexcept { return pointer_; }

 private:
  void release() noexcept;

  std::shared_ptr<const MemoryPool> pool_;
  std::size_t capacity_bytes_ = 0;
  void* host_ = nullptr;
  DevicePointer pointer_ = 0;
};

}  // namespace tiercel::cuda
