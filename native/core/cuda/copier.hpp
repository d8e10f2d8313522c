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
#include "cuda/memory_pool.hpp"
#include "cuda/run_table.hpp"
#include "memory/copy.hpp"

namespace tiercel::cuda {

enum class Direction { kGather, kScatter };  // GPU to host, host to GPU

enum class Way {
  kKernel,      // a kernel reaches over to the host
  kCopyEngine,  // the copy engine moves every run
  kStaged       // the copy engine moves slots whole to or from scratch memory, where a kernel finds or leaves them
};

struct CopierOptions {
  int num_ctas_gather = 2;  // of 1024 threads, that a kernel which reaches over to the host runs on
  int num_ctas_scatter = 4;
  int num_ctas_staged = 8;                // the same for kernels that stay on the device
  int num_streams = 2;                    // of each direction: transfers that can be under way at once
  std::size_t batch_copies = 256;         // that one call of the copy engine is given
  std::size_t scratch_bytes = 16u << 20;  // of one staged transfer
};

// An engine memory's runs, and on the device the table of them that the kernel indexes. Immutable.
class DeviceProgram {
 public:
  // std::invalid_argument as CopyProgram; DriverError if the device has no room.
  DeviceProgram(const std::shared_ptr<const MemoryPool>& pool, std::span<const CopyPiece> pieces,
                std::int64_t block_bytes);

  std::span<const Run> runs() const noexcept { return runs_; }
  DevicePointer table() const noexcept { return table_.device(); }
  std::size_t unit_bytes() const noexcept { return unit_bytes_; }
  std::size_t units_per_block() const noexcept { return units_per_block_; }
  std::size_t access_bytes() const noexcept { return access_bytes_; }
  // Bytes [slot_start, slot_start + span_bytes) of each slot are what the runs hold; span_bytes is 0 if there are gaps.
  std::size_t slot_start() const noexcept { return runs_.front().slot; }
  std::size_t span_bytes() const noexcept { return span_bytes_; }

 private:
  std::vector<Run> runs_;
  MirroredBuffer table_;
  std::size_t unit_bytes_ = 0;
  std::size_t units_per_block_ = 0;
  std::size_t access_bytes_ = 1;
  std::size_t span_bytes_ = 0;
};

// What one transfer uses at a time: streams, events, and room for its arguments.
struct Channel {
  static constexpr std::size_t kParts = 2;  // of a staged transfer's scratch: one is filled while the other is emptied

  Channel(const std::shared_ptr<const MemoryPool>& pool, Priority priority);
  Stream stream;          // of the bytes between host and device; `ended` is recorded on it
  Stream staging_stream;  // of a staged transfer's kernels
  Event started;
  Event ended;
  Event moved;  // of a staged scatter: all bytes have left the host, and the copy engine is free for others
  std::array<Event, kParts> filled;
  std::array<Event, kParts> emptied;
  MirroredBuffer arguments;
};

// Channels of one direction, lent one at a time. Whoever finds none waits.
class ChannelPool {
 public:
  ChannelPool(const std::shared_ptr<const MemoryPool>& pool, Priority priority, int num_channels);
  Channel* take();
  void put(Channel* channel) noexcept;

  // Held while a transfer is queued. Transfers whose engine is ready queue behind one another, so that the first of two
  // ends when half of the bytes have moved, and the next one is there before the second ends.
  std::mutex turn;
  EventHandle last = nullptr;  // when the link is free of the transfer to queue behind; an event of a channel

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

  // Make what is queued on a stream from now on wait for the bytes. For any thread, also beside `wait`.
  void hold(StreamHandle stream);

  Channel& channel() noexcept { return *channel_; }

 private:
  std::shared_ptr<const Device> device_;
  std::shared_ptr<ChannelPool> pool_;
  std::shared_ptr<const DeviceProgram> program_;
  std::mutex mutex_;  // of the channel, while it is given back
  Channel* channel_;
  float milliseconds_ = 0;
};

// Thread-safe.
class Copier {
 public:
  // cubin: copy_blocks.cu, compiled for this device; may be empty if only the copy engine is ever asked for.
  Copier(std::shared_ptr<const MemoryPool> pool, std::span<const std::byte> cubin, const CopierOptions& options);

  std::shared_ptr<const DeviceProgram> make_program(std::span<const CopyPiece> pieces, std::int64_t block_bytes) const;

  // Start copying engine block blocks[i] to or from the pinned slot at slots[i], not before `after`, an event of the
  // engine's stream, has happened (null: at once). Waits for a channel. std::invalid_argument, before a byte is copied,
  // if the lengths differ, a block is negative, an address null, or blocks with gaps in their slots are to be staged;
  // DriverError with nothing under way.
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
  // Blocks and slots of one transfer, as a kernel finds them.
  struct Lists {
    DevicePointer blocks;
    DevicePointer slots;
    std::size_t access_bytes;
  };

  Side make_side(int num_ctas, const char* prefix, Priority priority, int num_streams) const;
  void queue(Direction direction, Way way, Channel& channel, const DeviceProgram& program,
             std::span<const std::int64_t> blocks, std::span<const std::uint64_t> slots, EventHandle after) const;
  Lists upload(Channel& channel, StreamHandle stream, const DeviceProgram& program,
               std::span<const std::int64_t> blocks, std::span<const std::uint64_t> slots) const;
  // Blocks [first, stop) of the lists.
  void launch(const Side& side, int num_ctas, StreamHandle stream, const DeviceProgram& program, const Lists& lists,
              std::size_t first, std::size_t stop) const;
  // In staged_copy.cpp.
  void queue_staged(Direction direction, Channel& channel, const DeviceProgram& program,
                    std::span<const std::int64_t> blocks, std::span<const std::uint64_t> slots,
                    EventHandle after) const;

  std::shared_ptr<const MemoryPool> pool_;
  std::unique_ptr<const Module> module_;
  CopierOptions options_;
  Side gather_;
  Side scatter_;
};

// Copies that wait to be handed to the driver together; neighbours that go on where the last one ends are merged.
// Drivers older than 12.8 take them one by one. The context is current. In copy_engine.cpp.
class CopyBatch {
 public:
  CopyBatch(std::size_t capacity, StreamHandle stream);
  // Copies of one block that follow each other on both sides become one.
  void add(DevicePointer target, DevicePointer source, std::size_t num_bytes);
  // What follows belongs to another block: host memory is pinned in chunks, whose borders lie between slots, and the
  // driver refuses a copy that crosses one.
  void end_block() { may_merge_ = false; }
  void flush();

 private:
  std::size_t capacity_;
  StreamHandle stream_;
  bool may_merge_ = false;
  std::vector<DevicePointer> sources_;
  std::vector<DevicePointer> targets_;
  std::vector<std::size_t> sizes_;
};

// Queue every run on the copy engine; in copy_engine.cpp.
void queue_copies(Direction direction, const DeviceProgram& program, std::span<const std::int64_t> blocks,
                  std::span<const std::uint64_t> slots, std::size_t batch_copies, StreamHandle stream);

}  // namespace tiercel::cuda
