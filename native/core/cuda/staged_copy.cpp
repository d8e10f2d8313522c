#include <algorithm>
#include <exception>

#include "cuda/copier.hpp"

namespace tiercel::cuda {
namespace {

constexpr std::size_t kAlignment = 16;            // of a block in scratch memory: the kernel's widest access
constexpr std::size_t kLeastPartBytes = 1 << 20;  // less is not worth its launches

void record(const Event& event, StreamHandle stream) {
  check(driver().EventRecord(event.get(), stream), "cuEventRecord");
}

void wait_for(StreamHandle stream, EventHandle event) {
  check(driver().StreamWaitEvent(stream, event, 0), "cuStreamWaitEvent");
}

// Scratch memory of one transfer: lent on one stream, given back on another when both are done with it. Where queueing
// fails midway, the other need not know of the first one's last work, which is then waited for.
class Scratch {
 public:
  Scratch(const MemoryPool& pool, std::size_t num_bytes, StreamHandle first, StreamHandle last)
      : pool_(pool), first_(first), last_(last), pointer_(pool.take(num_bytes, first)) {}
  ~Scratch() {
    if (std::uncaught_exceptions() > num_exceptions_) driver().StreamSynchronize(first_);
    pool_.give_back(pointer_, last_);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  DevicePointer get() const noexcept { return pointer_; }

 private:
  const MemoryPool& pool_;
  int num_exceptions_ = std::uncaught_exceptions();
  StreamHandle first_;
  StreamHandle last_;
  DevicePointer pointer_;
};

}  // namespace

// Part by part: one stream fills half of the scratch memory while the other empties the other half.
//
//   direction   fills                               empties
//   gather      kernel, out of the engine's blocks  copy engine, into slots
//   scatter     copy engine, out of slots           kernel, into the engine's blocks
//
// Only the kernel waits for the engine. The copy stream ends last, which is where `ended` is recorded.
void Copier::queue_staged(Direction direction, Channel& channel, const DeviceProgram& program,
                          std::span<const std::int64_t> blocks, std::span<const std::uint64_t> slots,
                          EventHandle after) const {
  const bool gather = direction == Direction::kGather;
  const StreamHandle copies = channel.stream.get();
  const StreamHandle kernels = channel.staging_stream.get();
  const StreamHandle filling = gather ? kernels : copies;
  const StreamHandle emptying = gather ? copies : kernels;
  const std::size_t span = program.span_bytes();
  const std::size_t stride = (span + kAlignment - 1) / kAlignment * kAlignment;
  const std::size_t part_bytes =
      std::min(options_.scratch_bytes / Channel::kParts, std::max(kLeastPartBytes, blocks.size() * stride / 4));
  const std::size_t part_blocks = std::clamp<std::size_t>(part_bytes / stride, 1, blocks.size());

  channel.arguments.reserve(2 *
                            blocks.size_bytes());  // what may fail for want of memory comes before any work is queued
  const Scratch scratch(*pool_, Channel::kParts * part_blocks * stride, filling, emptying);
  std::vector<std::uint64_t> places(blocks.size());
  for (std::size_t i = 0; i < places.size(); ++i) {
    places[i] = scratch.get() + i % (Channel::kParts * part_blocks) * stride - program.slot_start();
  }
  if (after != nullptr) wait_for(kernels, after);
  const Lists lists = upload(channel, kernels, program, blocks, places);
  const Side& side = gather ? gather_ : scatter_;
  CopyBatch batch(options_.batch_copies, copies);
  const auto copy = [&](std::size_t first, std::size_t stop) {
    for (std::size_t i = first; i < stop; ++i) {
      const DevicePointer place = places[i] + program.slot_start();
      const DevicePointer slot = slots[i] + program.slot_start();
      gather ? batch.add(slot, place, span) : batch.add(place, slot, span);
      batch.end_block();
    }
    batch.flush();
  };
  const auto run = [&](std::size_t first, std::size_t stop) {
    launch(side, options_.num_ctas_staged, kernels, program, lists, first, stop);
  };
  std::size_t part = 0;
  for (std::size_t first = 0; first < blocks.size(); first += part_blocks, ++part) {
    const std::size_t stop = std::min(blocks.size(), first + part_blocks);
    const std::size_t turn = part % Channel::kParts;
    if (part >= Channel::kParts) wait_for(filling, channel.emptied[turn].get());
    gather ? run(first, stop) : copy(first, stop);
    record(channel.filled[turn], filling);
    wait_for(emptying, channel.filled[turn].get());
    gather ? copy(first, stop) : run(first, stop);
    record(channel.emptied[turn], emptying);
  }
  if (gather) return;
  record(channel.moved, copies);
  wait_for(copies, channel.emptied[(part - 1) % Channel::kParts].get());
}

}  // namespace tiercel::cuda
