#ifdef TIERCEL_HAVE_LIBURING

#include "uring_buffers.hpp"

#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

namespace tiercel::disk {
namespace {

// Registering one takes one to four milliseconds, and few transfers cross from one to the next. Memory of which little
// may be in use has small ones, since what is registered becomes resident.
constexpr std::uint64_t kPieceBytesMin = 16 << 20;
constexpr std::uint64_t kPieceBytes = 64 << 20;
constexpr std::uint64_t kPieceBytesMax = 1 << 30;  // the kernel's own bound
// Of the numbers, for one region: large ones get larger pieces.
constexpr std::uint64_t kPiecesMax = kBuffersMax / 2;

// Whether this process may pin any amount of memory. Wrong in a user namespace, where the attempt says so.
bool may_exceed_memory_lock() {
  constexpr std::uint64_t kCapIpcLock = 14;
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("CapEff:", 0) == 0) return (std::stoull(line.substr(7), nullptr, 16) >> kCapIpcLock & 1) != 0;
  }
  return false;
}

constexpr const char* kRemedy = "; disk I/O takes more CPU. Raise it: ulimit -l, LimitMEMLOCK=, --ulimit memlock=-1";

// Why so much memory cannot be pinned, or "".
std::string lock_limit_reason(std::uint64_t bytes) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY || bytes <= limit.rlim_cur ||
      may_exceed_memory_lock()) {
    return {};
  }
  return "memory of " + std::to_string(bytes >> 10) + " KiB is not registered with io_uring: RLIMIT_MEMLOCK allows " +
         std::to_string(limit.rlim_cur >> 10) + " KiB" + kRemedy;
}

std::string refusal(int error) {
  std::string text = std::string("the kernel did not register memory with io_uring (") + std::strerror(error) + ")";
  if (error == EINVAL) return text + ": that takes Linux 5.19; disk I/O takes more CPU";
  if (error == ENOMEM || error == EPERM) return text + ": RLIMIT_MEMLOCK may forbid it" + kRemedy;
  return text + ": disk I/O takes more CPU";
}

std::uint64_t piece_bytes_of(const IoMemory& memory) {
  const std::uint64_t least = std::clamp(memory.bytes / 8, kPieceBytesMin, kPieceBytes);
  const std::uint64_t wanted = std::max(least, memory.bytes / kPiecesMax + 1);
  const std::uint64_t unit = std::max<std::uint64_t>(memory.unit_bytes, 4096);
  return std::min(kPieceBytesMax, (wanted + unit - 1) / unit * unit) / unit * unit;
}

}  // namespace

void UringBuffers::add(const IoMemory& memory) {
  const std::lock_guard lock(mutex_);
  std::uint64_t bytes = memory.bytes;
  for (const auto& region : regions_) bytes += region->memory.bytes;
  if (std::string reason = lock_limit_reason(bytes); !reason.empty()) {
    reason_ = std::move(reason);
    return;
  }
  auto region = std::make_unique<Region>();
  region->memory = memory;
  region->piece_bytes = piece_bytes_of(memory);
  const std::uint64_t count =
      region->piece_bytes == 0 ? kBuffersMax + 1 : (memory.bytes + region->piece_bytes - 1) / region->piece_bytes;
  const auto first = count > kBuffersMax ? std::nullopt : free_numbers(static_cast<std::uint32_t>(count));
  if (!first) {
    reason_ = "memory of " + std::to_string(memory.bytes >> 30) + " GiB is more than io_uring can register";
    return;
  }
  region->first = *first;
  region->count = static_cast<std::uint32_t>(count);
  const auto place = std::find_if(regions_.begin(), regions_.end(), [&](const auto& r) { return r->first > *first; });
  regions_.insert(place, std::move(region));
}

// The first gap between regions that is long enough.
std::optional<std::uint32_t> UringBuffers::free_numbers(std::uint32_t count) const {
  std::uint32_t first = 0;
  for (const auto& region : regions_) {
    if (region->first - first >= count) return first;
    first = region->first + region->count;
  }
  return kBuffersMax - first >= count ? std::optional(first) : std::nullopt;
}

void UringBuffers::remove(std::uint64_t address, const std::vector<std::unique_ptr<Ring>>& rings) {
  const std::lock_guard lock(mutex_);
  const auto found =
      std::find_if(regions_.begin(), regions_.end(), [&](const auto& r) { return r->memory.address == address; });
  if (found == regions_.end()) return;
  const Region& region = **found;
  for (std::uint32_t piece = 0; piece < region.count; ++piece) {
    const std::uint32_t number = region.first + piece;
    std::uint64_t owners = holder_ && holder_->holds_buffer(number) ? 1 : 0;
    for (const auto& ring : rings) {
      if (!shares_ && ring->holds_buffer(number)) ++owners;
      ring->drop_buffer(number);
    }
    if (holder_) holder_->drop_buffer(number);
    registered_bytes_.fetch_sub(owners * memory_of(region, piece).iov_len, std::memory_order_relaxed);
  }
  regions_.erase(found);
}

std::optional<std::uint32_t> UringBuffers::find(Ring& ring, const iovec& segment) {
  const auto address = static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(segment.iov_base));
  for (const auto& region : regions_) {
    if (address < region->memory.address) continue;
    const std::uint64_t start = address - region->memory.address;
    if (start >= region->memory.bytes || segment.iov_len > region->memory.bytes - start) continue;
    const auto piece = static_cast<std::uint32_t>(start / region->piece_bytes);
    if ((start + segment.iov_len - 1) / region->piece_bytes != piece) return std::nullopt;
    const std::uint32_t number = region->first + piece;
    if (ring.holds_buffer(number) || provide(ring, *region, piece)) return number;
    return std::nullopt;
  }
  return std::nullopt;
}

iovec UringBuffers::memory_of(const Region& region, std::uint32_t piece) {
  const std::uint64_t start = piece * region.piece_bytes;
  return {reinterpret_cast<void*>(static_cast<std::uintptr_t>(region.memory.address + start)),
          static_cast<std::size_t>(std::min(region.piece_bytes, region.memory.bytes - start))};
}

bool UringBuffers::provide(Ring& ring, Region& region, std::uint32_t piece) {
  if (region.refused.load(std::memory_order_relaxed)) return false;
  const std::lock_guard lock(mutex_);
  const int error = register_piece(ring, region.first + piece, memory_of(region, piece));
  if (error == 0) return true;
  region.refused.store(true, std::memory_order_relaxed);  // what is registered already stays so
  reason_ = refusal(error);
  return false;
}

int UringBuffers::register_piece(Ring& ring, std::uint32_t number, const iovec& memory) {
  int error = 0;
  if (shares_) {
    if (!holder_) holder_ = Ring::create({}, 1, error);
    if (!holder_) return error;
    const bool is_new = !holder_->holds_buffer(number);
    if (is_new) error = holder_->register_buffer(number, memory);
    if (error != 0) return error;
    error = ring.share_buffer(number, *holder_);
    if (error == 0 && is_new) registered_bytes_.fetch_add(memory.iov_len, std::memory_order_relaxed);
    if (error != EINVAL) return error;
    shares_ = false;  // an older kernel
    holder_.reset();
  }
  error = ring.register_buffer(number, memory);
  if (error == 0) registered_bytes_.fetch_add(memory.iov_len, std::memory_order_relaxed);
  return error;
}

std::string UringBuffers::reason() const {
  const std::lock_guard lock(mutex_);
  return reason_;
}

}  // namespace tiercel::disk

#endif
