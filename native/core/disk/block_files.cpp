#include "block_files.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <numeric>
#include <stdexcept>
#include <utility>

#include "block_batch.hpp"
#include "memory/checksum.hpp"

namespace tiercel::disk {
namespace {

// Larger requests gain no bandwidth, and a failure or a checksum would wait for more bytes.
constexpr std::uint64_t kRequestBytesMax = 4 << 20;
// A larger block is split: four blocks of 8 MiB, a transfer chunk, would otherwise be all that a device has to do.
constexpr std::uint64_t kPartBytesMax = 2 << 20;
// A call is cut into at least so many requests where it can be, so that checksums overlap with transfers.
constexpr std::uint64_t kRequestsMin = 8;
// No merging beyond the size at which a device reaches its bandwidth anyway.
constexpr std::uint64_t kRequestBytesFloor = 512 << 10;

double now_s() noexcept {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::span<const std::byte> bytes_at(std::uint64_t address, std::uint64_t bytes) {
  return {reinterpret_cast<const std::byte*>(static_cast<std::uintptr_t>(address)), static_cast<std::size_t>(bytes)};
}

// Gives a file its size and its space. Returns why space could not be allocated ahead, or "".
std::string allocate(const File& file, std::uint64_t bytes) {
  if (file.size() > bytes) file.resize(bytes);
  if (bytes == 0) return {};
  int status;
  do {
    status = ::fallocate(file.descriptor(), 0, 0, static_cast<off_t>(bytes));
  } while (status != 0 && errno == EINTR);
  if (status == 0) return {};
  if (errno != EOPNOTSUPP) throw FileError(errno, "cannot allocate space", file.path());
  file.resize(bytes);
  return "the filesystem of " + file.path() + " cannot allocate space ahead; a write may find it full";
}

// Whether direct I/O of whole pages works on this file: some filesystems take the flag and refuse the transfer.
int try_direct_read(const File& file) {
  void* page = ::mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return errno;
  const int error = ::pread(file.descriptor(), page, kPageBytes, 0) < 0 ? errno : 0;
  ::munmap(page, kPageBytes);
  return error;
}

void check_options(const BlockFilesOptions& options) {
  if (options.paths.empty()) throw std::invalid_argument("paths: at least one file");
  if (options.num_slots == 0) throw std::invalid_argument("num_slots: at least 1");
  if (options.block_bytes == 0) throw std::invalid_argument("block_bytes: at least 1");
  if (options.slot_bytes % kPageBytes != 0 || options.slot_bytes < options.block_bytes ||
      options.slot_bytes > (std::uint64_t{1} << 30)) {
    throw std::invalid_argument("slot_bytes: a multiple of 4096, at least block_bytes, at most 1 GiB");
  }
  if (options.queue_depth == 0 || options.queue_depth > 32768) throw std::invalid_argument("queue_depth: 1 to 32768");
}

}  // namespace

// Drives one call: transfers merged requests, then once more, block by block, what failed together, so that each
// block's outcome is its own.
class BlockFiles::Batch final : public IoObserver {
 public:
  Batch(BlockFiles& files, IoDirection direction, std::span<const std::uint32_t> slots,
        std::span<const std::uint64_t> addresses, std::span<std::int32_t> errors)
      : files_(files), direction_(direction), slots_(slots), addresses_(addresses), errors_(errors) {}

  // Called for each block before a write or after a successful read; returns the block's outcome.
  std::span<const std::uint64_t> seeds;
  std::span<std::uint64_t> written_checksums;
  std::span<const std::uint64_t> expected_checksums;
  std::span<double> seconds;  // holds when a block began until it ends

  void run() {
    std::vector<std::size_t> blocks(slots_.size());
    std::iota(blocks.begin(), blocks.end(), std::size_t{0});
    const std::uint64_t slot_bytes = files_.options_.slot_bytes;
    const std::uint64_t even_share = slots_.size() * slot_bytes / kRequestsMin;
    transfer(std::move(blocks), std::clamp(even_share, kRequestBytesFloor, kRequestBytesMax));
    if (!again_.empty()) transfer(std::exchange(again_, {}), slot_bytes);
  }

  void before(std::size_t request) noexcept override {
    if (plan_.requests[request].part != 0) return;
    if (!seconds.empty()) {
      const double now = now_s();
      for (const std::size_t block : blocks_of(request)) seconds[block] = now;
    }
    if (direction_ != IoDirection::kWrite) return;
    for (const std::size_t block : blocks_of(request)) written_checksums[block] = checksum_of(block);
  }

  void after(std::size_t request, int error) noexcept override {
    const std::span<const std::size_t> blocks = blocks_of(request);
    if (error != 0 && blocks.size() > 1) {
      again_.insert(again_.end(), blocks.begin(), blocks.end());  // reserved for every block: does not throw
      return;
    }
    if (plan_.requests[request].num_parts > 1) {
      after_part(blocks[0], error);
      return;
    }
    for (const std::size_t block : blocks) finish(block, error);
  }

 private:
  void transfer(std::vector<std::size_t> blocks, std::uint64_t request_bytes_max) {
    again_.reserve(blocks.size());
    const auto num_files = static_cast<std::uint32_t>(files_.files_.size());
    plan_ = plan_batch({num_files, files_.options_.slot_bytes, request_bytes_max, kPartBytesMax}, slots_, addresses_,
                       std::move(blocks));
    std::vector<IoRequest> requests;
    requests.reserve(plan_.requests.size());
    for (const PlannedRequest& planned : plan_.requests) {
      requests.push_back(planned.io);
      if (planned.num_parts == 1) continue;
      parts_.resize(slots_.size());
      parts_[plan_.order[planned.first]] = {planned.num_parts, 0};
    }
    files_.engine_->run(direction_, requests, *this);
  }

  // A block is as good as the worst of its parts, and its checksum waits for the last.
  void after_part(std::size_t block, int error) noexcept {
    Parts& parts = parts_[block];
    if (parts.error == 0) parts.error = error;
    if (--parts.num_left == 0) finish(block, parts.error);
  }

  void finish(std::size_t block, int error) noexcept {
    const bool wrong =
        error == 0 && direction_ == IoDirection::kRead && checksum_of(block) != expected_checksums[block];
    errors_[block] = wrong ? kChecksumMismatch : error;
    if (!seconds.empty()) seconds[block] = now_s() - seconds[block];
  }

  std::span<const std::size_t> blocks_of(std::size_t request) const noexcept {
    return std::span(plan_.order).subspan(plan_.requests[request].first, plan_.requests[request].count);
  }

  std::uint64_t checksum_of(std::size_t block) const noexcept {
    return checksum(bytes_at(addresses_[block], files_.options_.block_bytes), seeds[block]);
  }

  // A split block: parts that have not ended, and the first error of those that have.
  struct Parts {
    std::uint32_t num_left = 0;
    int error = 0;
  };

  BlockFiles& files_;
  const IoDirection direction_;
  const std::span<const std::uint32_t> slots_;
  const std::span<const std::uint64_t> addresses_;
  const std::span<std::int32_t> errors_;
  BatchPlan plan_;
  std::vector<Parts> parts_;        // by block of the call; empty where none is split
  std::vector<std::size_t> again_;  // blocks of failed requests that carried several
};

BlockFiles::BlockFiles(BlockFilesOptions options) : options_(std::move(options)) {
  check_options(options_);
  open_files();
  choose_engine();
}

void BlockFiles::open_files() {
  const auto num_files = static_cast<std::uint32_t>(options_.paths.size());
  direct_ = options_.direct;
  if (!direct_) direct_reason_ = "turned off by the caller";
  for (std::uint32_t i = 0; i < num_files; ++i) {
    File file = File::open(options_.paths[i], O_RDWR | O_CREAT);
    const std::uint32_t rows = (options_.num_slots + num_files - 1 - i) / num_files;
    const std::string reason = allocate(file, rows * options_.slot_bytes);
    if (!reason.empty()) allocation_reason_ = reason;
    files_.push_back(std::move(file));
  }
  for (std::uint32_t i = 0; direct_ && i < num_files; ++i) {
    const int flags = ::fcntl(files_[i].descriptor(), F_GETFL);
    int error = ::fcntl(files_[i].descriptor(), F_SETFL, flags | O_DIRECT) == 0 ? 0 : errno;
    if (error == 0) error = try_direct_read(files_[i]);
    if (error == 0) continue;
    direct_ = false;
    direct_reason_ =
        "the filesystem of " + options_.paths[i] + " does not take O_DIRECT (" + std::strerror(error) + ")";
  }
  if (direct_) return;
  for (const File& file : files_) {  // all or none: what is said of one holds for all
    ::fcntl(file.descriptor(), F_SETFL, ::fcntl(file.descriptor(), F_GETFL) & ~O_DIRECT);
  }
}

void BlockFiles::choose_engine() {
  const EngineLimits limits{options_.queue_depth, options_.write_bytes_beside_reads};
  std::vector<int> descriptors;
  for (const File& file : files_) descriptors.push_back(file.descriptor());
  if (options_.engine == EngineChoice::kThreads) {
    engine_reason_ = "threads were asked for";
  } else {
    engine_ = make_uring_engine(descriptors, limits, engine_reason_);
    uses_uring_ = engine_ != nullptr;
    if (!uses_uring_ && options_.engine == EngineChoice::kUring)
      throw FileError(ENOSYS, engine_reason_, options_.paths[0]);
  }
  if (!engine_) engine_ = make_thread_engine(std::move(descriptors), limits);
}

void BlockFiles::check(std::span<const std::uint32_t> slots, std::span<const std::uint64_t> addresses) const {
  for (const std::uint32_t slot : slots) {
    if (slot >= options_.num_slots) throw std::invalid_argument("slots: out of range");
  }
  for (const std::uint64_t address : addresses) {
    if (address % kPageBytes != 0 || address == 0) throw std::invalid_argument("addresses: not page-aligned");
  }
}

void BlockFiles::use_memory(const IoMemory& memory) {
  if (memory.address == 0 || memory.address % kPageBytes != 0 || memory.bytes == 0) {
    throw std::invalid_argument("memory: must begin at a page and have bytes");
  }
  engine_->use_memory(memory);
}

void BlockFiles::forget_memory(std::uint64_t address) { engine_->forget_memory(address); }

void BlockFiles::sync() const {
  for (const File& file : files_) file.sync();
}

void BlockFiles::write(std::span<const std::uint32_t> slots, std::span<const std::uint64_t> addresses,
                       std::span<const std::uint64_t> seeds, std::span<std::int32_t> errors,
                       std::span<std::uint64_t> checksums, std::span<double> seconds) {
  check(slots, addresses);
  Batch batch(*this, IoDirection::kWrite, slots, addresses, errors);
  batch.seeds = seeds;
  batch.written_checksums = checksums;
  batch.seconds = seconds;
  batch.run();
}

void BlockFiles::read(std::span<const std::uint32_t> slots, std::span<const std::uint64_t> addresses,
                      std::span<const std::uint64_t> seeds, std::span<const std::uint64_t> checksums,
                      std::span<std::int32_t> errors, std::span<double> seconds) {
  check(slots, addresses);
  Batch batch(*this, IoDirection::kRead, slots, addresses, errors);
  batch.seeds = seeds;
  batch.expected_checksums = checksums;
  batch.seconds = seconds;
  batch.run();
}

}  // namespace tiercel::disk
