// Copies an engine's blocks between GPU memory and pinned host memory, on streams of its own.
#pragma once

#include <array>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "cuda/device.hpp"
#include "cuda/run_table.hpp"
#include "memory/copy.hpp"

namespace tiercel::cuda {

enum class Direction { kGather, kScatter };  // GPU to host, host to GPU

enum class Way { kKernel, kCopyEngine };

struct CopierOptions {
  int num_ctas_gather = 2;  // of 1024 threads, that a kernel runs on
  int num_ctas_scatter = 4;
  int num_streams = 2;             // of each direction: transfers that can be under way at once
  std::size_t batch_copies = 256;  // that one call of the copy engine is given
};

// An engine memory's runs, and on the device the table of them that the kernel indexes. Immutable.
class DeviceProgram {
 public:
  // std::invalid_argument as CopyProgram; DriverError if the device has no room.
  DeviceProgram(std::shared_ptr<const Device> device, std::span<const CopyPiece> pieces, std::int64_t block_bytes);

  std::span<const Run> runs() const noexcept { return runs_; }
  DevicePointer table() const noexcept { return table_.device(); }
  std::size_t unit_bytes() const noexcept { return unit_bytes_; }
  std::size_t units_per_block() const noexcept { return units_per_block_; }
  std::size_t access_bytes() const noexcept { return access_bytes_; }

 private:
  std::vector<Run> runs_;
  MirroredBuffer table_;
  std::size_t unit_bytes_ = 0;
  std::size_t units_per_block_ = 0;
  std::size_t access_bytes_ = 1;
};

// What one transfer uses at a time: a stream, its events, and room for its arguments.
struct Channel {
  Channel(const std::shared_ptr<const Device>& device, Priority priority)
      : stream(device, priority), started(device), ended(device), arguments(device) {}
  Stream stream;
  Event started;
  Event ended;
  MirroredBuffer arguments;
};

// Channels of one direction, lent one at a time. Whoever finds none waits.
class ChannelPool {
 public:
  ChannelPool(const std::shared_ptr<const Device>& device, Priority priority, int num_channels);
  Channel* take();
  void put(Channel* channel) noexcept;

 private:
  std::mutex mutex_;
  std::condition_variable returned_;
  std::vector<std::unique_ptr<Channel>> channels_;
  std::vector<Channel*> free_;
};

// A transfer under way. It ends with `wait`, or when destroyed, which waits as well: until then both sides' memory, the
// program and the caller's event must stay as they are.
class Transfer {
 public:
  Transfer(std::shared_ptr<const Device> device, std::shared_ptr<ChannelPool> pool,
           std::shared_ptr<const DeviceProgram> program);
  ~Transfer();
  Transfer(const Transfer&) = delete;
  Transfer& operator=(const Transfer&) = delete;

  // Block until the bytes have arrived; returns how long the device took, in milliseconds. Idempotent, not to be
  // called by two threads at once. DriverError if the device failed.
  float wait();

  Channel& channel() noexcept { return *channel_; }

 private:
  std::shared_ptr<const Device> device_;
  std::shared_ptr<ChannelPool> pool_;
  std::shared_ptr<const DeviceProgram> program_;
  Channel* channel_;
  float milliseconds_ = 0;
};

// Thread-safe.
class Copier {
 public:
  // cubin: copy_blocks.cu, compiled for this device; may be empty if only the copy engine is ever asked for.
  Copier(std::shared_ptr<const Device> device, std::span<const std::byte> cubin, const CopierOptions& options);

  std::shared_ptr<const DeviceProgram> make_program(std::span<const CopyPiece> pieces, std::int64_t block_bytes) const;

  // Start copying engine block blocks[i] to or from the pinned slot at slots[i], not before `after`, an event of the
  // engine's stream, has happened (null: at once). Waits for a channel. std::invalid_argument, before a byte is copied,
  // if the lengths differ, a block is negative or an address null; DriverError with nothing under way.
  std::unique_ptr<Transfer> start(Direction direction, Way way, std::shared_ptr<const DeviceProgram> program,
                                  std::span<const std::int64_t> blocks, std::span<const std::uint64_t> slots,
                                  EventHandle after) const;

 private:
  static constexpr std::size_t kNumWidths = 5;  // 1, 2, 4, 8 and 16 bytes

  struct Side {
    int num_ctas;
    std::array<FunctionHandle, kNumWidths> kernels;
    std::shared_ptr<ChannelPool> channels;
  };

  Side make_side(int num_ctas, const char* prefix, Priority priority, int num_streams) const;
  void launch_kernels(const Side& side, Channel& channel, const DeviceProgram& program,
                      std::span<const std::int64_t> blocks, std::span<const std::uint64_t> slots) const;

  std::shared_ptr<const Device> device_;
  std::unique_ptr<const Module> module_;
  std::size_t batch_copies_;
  Side gather_;
  Side scatter_;
};

// Queue every run on the copy engine, merged where both sides go on; in copy_engine.cpp. The context is current.
void queue_copies(Direction direction, const DeviceProgram& program, std::span<const std::int64_t> blocks,
                  std::span<const std::uint64_t> slots, std::size_t batch_copies, StreamHandle stream);

}  // namespace tiercel::cuda
