#include "cuda/copier.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <string>
#include <utility>

namespace tiercel::cuda {
namespace {

constexpr unsigned kThreads = 1024;                  // as in copy_blocks.cu
constexpr std::size_t kMaxVectors = (1u << 31) - 1;  // of one launch: the kernel's arithmetic

// As copy_blocks.cu has them.
struct Divisor {
  std::uint32_t value;
  std::uint32_t multiplier;
  std::uint32_t shift;
};
struct Work {
  DevicePointer runs;
  DevicePointer blocks;
  DevicePointer slots;
  std::uint32_t num_vectors;
  Divisor vectors_per_run;
  Divisor runs_per_block;
};

// For n < 2^31 and s = ceil(log2 divisor): n / divisor = (n * ceil(2^(31 + s) / divisor)) >> (31 + s), because the
// multiplier exceeds the true quotient by less than 2^s / divisor / 2^s.
Divisor make_divisor(std::size_t divisor) noexcept {
  const auto value = static_cast<std::uint32_t>(divisor);
  if (value == 1) return {1, 0, 0};
  const auto bits = static_cast<std::uint32_t>(std::bit_width(value - 1));
  const std::uint64_t power = std::uint64_t{1} << (31 + bits);
  return {value, static_cast<std::uint32_t>((power + value - 1) / value), bits - 1};
}

std::size_t slots_alignment(std::span<const std::uint64_t> slots) noexcept {
  std::uint64_t bits = 16;
  for (const std::uint64_t slot : slots) bits |= slot;
  return std::size_t{1} << std::countr_zero(bits);
}

void require(bool holds, const char* what) {
  if (!holds) throw std::invalid_argument(what);
}

}  // namespace

DeviceProgram::DeviceProgram(const std::shared_ptr<const MemoryPool>& pool, std::span<const CopyPiece> pieces,
                             std::int64_t block_bytes)
    : runs_(list_runs(CopyProgram(pieces, block_bytes).pieces())), table_(pool) {
  const std::vector<Run> units = split_evenly(runs_);
  unit_bytes_ = units.front().num_bytes;
  units_per_block_ = units.size();
  access_bytes_ = widest_access(units);
  const std::size_t held_bytes = unit_bytes_ * units_per_block_;
  require(held_bytes <= kMaxVectors, "a block has 2 GiB or more");
  const Run& last = runs_.back();
  if (last.slot + last.num_bytes - slot_start() == held_bytes) span_bytes_ = held_bytes;
  const std::size_t num_bytes = units.size() * sizeof(Run);
  table_.reserve(num_bytes);
  std::memcpy(table_.host(), units.data(), num_bytes);
  const ContextScope scope(*pool->device());
  table_.upload(num_bytes, pool->stream());
  check(driver().StreamSynchronize(pool->stream()), "cuStreamSynchronize");
}

Channel::Channel(const std::shared_ptr<const MemoryPool>& pool, Priority priority)
    : stream(pool->device(), priority),
      staging_stream(pool->device(), priority),
      started(pool->device(), EventKind::kTimed),
      ended(pool->device(), EventKind::kTimed),
      moved(pool->device(), EventKind::kOrdering),
      filled{Event(pool->device(), EventKind::kOrdering), Event(pool->device(), EventKind::kOrdering)},
      emptied{Event(pool->device(), EventKind::kOrdering), Event(pool->device(), EventKind::kOrdering)},
      arguments(pool) {}

ChannelPool::ChannelPool(const std::shared_ptr<const MemoryPool>& pool, Priority priority, int num_channels) {
  for (int i = 0; i < num_channels; ++i) {
    channels_.push_back(std::make_unique<Channel>(pool, priority));
    free_.push_back(channels_.back().get());
  }
}

Channel* ChannelPool::take() {
  std::unique_lock lock(mutex_);
  returned_.wait(lock, [this] { return !free_.empty(); });
  Channel* channel = free_.back();
  free_.pop_back();
  return channel;
}

void ChannelPool::put(Channel* channel) noexcept {
  const std::lock_guard lock(mutex_);
  free_.push_back(channel);  // never grows beyond what it once held
  returned_.notify_one();
}

Transfer::Transfer(std::shared_ptr<const Device> device, std::shared_ptr<ChannelPool> pool,
                   std::shared_ptr<const DeviceProgram> program)
    : device_(std::move(device)), pool_(std::move(pool)), program_(std::move(program)), channel_(pool_->take()) {}

Transfer::~Transfer() {
  if (channel_ == nullptr) return;
  in_context(*device_, [this] {
    driver().StreamSynchronize(channel_->staging_stream.get());
    driver().StreamSynchronize(channel_->stream.get());
  });
  pool_->put(channel_);
}

float Transfer::wait() {
  if (channel_ == nullptr) return milliseconds_;
  const ContextScope scope(*device_);
  check(driver().EventSynchronize(channel_->ended.get()), "cuEventSynchronize");
  check(driver().EventElapsedTime(&milliseconds_, channel_->started.get(), channel_->ended.get()),
        "cuEventElapsedTime");
  const std::lock_guard lock(mutex_);
  pool_->put(std::exchange(channel_, nullptr));
  return milliseconds_;
}

void Transfer::hold(StreamHandle stream) {
  const std::lock_guard lock(mutex_);
  if (channel_ == nullptr) return;  // the bytes are there
  const ContextScope scope(*device_);
  check(driver().StreamWaitEvent(stream, channel_->ended.get(), 0), "cuStreamWaitEvent");
}

Copier::Copier(std::shared_ptr<const MemoryPool> pool, std::span<const std::byte> cubin, const CopierOptions& options)
    : pool_(std::move(pool)), options_(options) {
  require(options.num_streams >= 1 && options.batch_copies >= 1, "num_streams and batch_copies must be at least 1");
  if (!cubin.empty()) module_ = std::make_unique<const Module>(pool_->device(), cubin);
  gather_ = make_side(options.num_ctas_gather, "gather_", Priority::kLeast, options.num_streams);
  scatter_ = make_side(options.num_ctas_scatter, "scatter_", Priority::kGreatest, options.num_streams);
}

Copier::Side Copier::make_side(int num_ctas, const char* prefix, Priority priority, int num_streams) const {
  require(num_ctas >= 1 && options_.num_ctas_staged >= 1, "num_ctas must be at least 1");
  Side side{
      .num_ctas = num_ctas, .kernels = {}, .channels = std::make_shared<ChannelPool>(pool_, priority, num_streams)};
  if (module_ == nullptr) return side;
  for (std::size_t i = 0; i < kNumWidths; ++i) {
    side.kernels[i] = module_->function((prefix + std::to_string(std::size_t{1} << i)).c_str());
  }
  return side;
}

std::shared_ptr<const DeviceProgram> Copier::make_program(std::span<const CopyPiece> pieces,
                                                          std::int64_t block_bytes) const {
  return std::make_shared<const DeviceProgram>(pool_, pieces, block_bytes);
}

std::unique_ptr<Transfer> Copier::start(Direction direction, Way way, std::shared_ptr<const DeviceProgram> program,
                                        std::span<const std::int64_t> blocks, std::span<const std::uint64_t> slots,
                                        EventHandle after) const {
  require(blocks.size() == slots.size(), "blocks and slots differ in length");
  require(std::ranges::find(slots, 0u) == slots.end(), "an address is null");
  require(std::ranges::none_of(blocks, [](std::int64_t block) { return block < 0; }), "a block is negative");
  require(way == Way::kCopyEngine || module_ != nullptr, "a kernel is asked for without its cubin");
  require(way != Way::kStaged || program->span_bytes() != 0, "blocks with gaps in their slots cannot be staged");
  const Side& side = direction == Direction::kGather ? gather_ : scatter_;
  auto transfer = std::make_unique<Transfer>(pool_->device(), side.channels, program);  // from here on ends with its
  Channel& channel = transfer->channel();                                               // streams idle
  const ContextScope scope(*pool_->device());
  const StreamHandle stream = channel.stream.get();
  const std::lock_guard turn(side.channels->turn);
  if (after != nullptr && driver().EventQuery(after) == 0) after = nullptr;
  if (after == nullptr) {
    if (side.channels->last != nullptr) {
      check(driver().StreamWaitEvent(stream, side.channels->last, 0), "cuStreamWaitEvent");
    }
    const bool ends_on_device = way == Way::kStaged && direction == Direction::kScatter;
    side.channels->last = (ends_on_device ? channel.moved : channel.ended).get();
  }
  queue(direction, way, channel, *program, blocks, slots, after);
  check(driver().EventRecord(channel.ended.get(), stream), "cuEventRecord");
  return transfer;
}

void Copier::queue(Direction direction, Way way, Channel& channel, const DeviceProgram& program,
                   std::span<const std::int64_t> blocks, std::span<const std::uint64_t> slots,
                   EventHandle after) const {
  const StreamHandle stream = channel.stream.get();
  if (way != Way::kStaged && after != nullptr) check(driver().StreamWaitEvent(stream, after, 0), "cuStreamWaitEvent");
  check(driver().EventRecord(channel.started.get(), stream), "cuEventRecord");
  if (blocks.empty()) return;
  switch (way) {
    case Way::kCopyEngine:
      queue_copies(direction, program, blocks, slots, options_.batch_copies, stream);
      return;
    case Way::kStaged:
      queue_staged(direction, channel, program, blocks, slots, after);
      return;
    case Way::kKernel:
      const Side& side = direction == Direction::kGather ? gather_ : scatter_;
      launch(side, side.num_ctas, stream, program, upload(channel, stream, program, blocks, slots), 0, blocks.size());
  }
}

Copier::Lists Copier::upload(Channel& channel, StreamHandle stream, const DeviceProgram& program,
                             std::span<const std::int64_t> blocks, std::span<const std::uint64_t> slots) const {
  const std::size_t list_bytes = blocks.size_bytes();
  channel.arguments.reserve(2 * list_bytes);
  std::memcpy(channel.arguments.host(), blocks.data(), list_bytes);
  std::memcpy(channel.arguments.host() + list_bytes, slots.data(), list_bytes);
  channel.arguments.upload(2 * list_bytes, stream);
  return {.blocks = channel.arguments.device(),
          .slots = channel.arguments.device() + list_bytes,
          .access_bytes = std::min(program.access_bytes(), slots_alignment(slots))};
}

void Copier::launch(const Side& side, int num_ctas, StreamHandle stream, const DeviceProgram& program,
                    const Lists& lists, std::size_t first, std::size_t stop) const {
  const FunctionHandle kernel = side.kernels[static_cast<std::size_t>(std::countr_zero(lists.access_bytes))];
  const std::size_t vectors_per_run = program.unit_bytes() / lists.access_bytes;
  const std::size_t vectors_per_block = vectors_per_run * program.units_per_block();
  const std::size_t blocks_per_launch = kMaxVectors / vectors_per_block;
  while (first < stop) {
    const std::size_t num_blocks = std::min(blocks_per_launch, stop - first);
    Work work{.runs = program.table(),
              .blocks = lists.blocks + first * sizeof(std::int64_t),
              .slots = lists.slots + first * sizeof(std::uint64_t),
              .num_vectors = static_cast<std::uint32_t>(num_blocks * vectors_per_block),
              .vectors_per_run = make_divisor(vectors_per_run),
              .runs_per_block = make_divisor(program.units_per_block())};
    void* parameters[] = {&work};
    check(driver().LaunchKernel(kernel, static_cast<unsigned>(num_ctas), 1, 1, kThreads, 1, 1, 0, stream, parameters,
                                nullptr),
          "cuLaunchKernel");
    first += num_blocks;
  }
}

}  // namespace tiercel::cuda
