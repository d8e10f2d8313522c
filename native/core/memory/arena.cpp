#include "memory/arena.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <fstream>
#include <stdexcept>
#include <string>
#include <system_error>

#include "memory/memory_limits.hpp"

#ifndef MADV_POPULATE_WRITE  // Linux 5.14
#define MADV_POPULATE_WRITE 23
#endif

namespace tiercel {
namespace {

constexpr std::size_t kHugePageBytes = std::size_t{2} << 20;

[[noreturn]] void fail(int error, const std::string& what) {
  throw std::system_error(error, std::generic_category(), what);
}

std::string describe(std::size_t num_bytes) { return "arena of " + std::to_string(num_bytes) + " bytes"; }

std::size_t round_up(std::size_t value, std::size_t unit) { return (value + unit - 1) / unit * unit; }

// Whether the kernel gives transparent huge pages to memory that asks for them; `choices` is its file on that.
bool gives_huge_pages(const char* choices) {
  std::ifstream file(choices);
  std::string line;
  std::getline(file, line);
  for (const char* chosen : {"[advise]", "[madvise]", "[always]", "[within_size]", "[force]"}) {
    if (line.find(chosen) != std::string::npos) return true;
  }
  return false;
}

// For good: whoever is given the file, such as a node's client, cannot cut it short under those who have it mapped.
bool set_size(int fd, std::size_t num_bytes) {
  return ::ftruncate(fd, static_cast<off_t>(num_bytes)) == 0 &&
         ::fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0;
}

}  // namespace

Arena::Arena(const ArenaOptions& options) : num_bytes_(options.num_bytes) {
  if (num_bytes_ == 0) throw std::invalid_argument("an arena needs at least one byte");
  if (!options.shared) {
    map_private_pages(options.hugepages);
    return;
  }
  if (options.hugepages && map_reserved_huge_pages()) return;
  map_plain_pages(options.hugepages);
}

Arena::~Arena() { close(); }

std::byte* Arena::data() const {
  if (data_ == nullptr) throw std::invalid_argument("the arena is closed");
  return data_;
}

int Arena::fd() const {
  if (data_ == nullptr) throw std::invalid_argument("the arena is closed");
  if (fd_ < 0) throw std::invalid_argument("the arena is of this process alone: no other can map it");
  return fd_;
}

// Reserved pages belong to this mapping from mmap on, so it fails here or never.
bool Arena::map_reserved_huge_pages() {
  const int fd =
      ::memfd_create("tiercel-arena", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB | (21u << MAP_HUGE_SHIFT));
  if (fd < 0) return false;
  const std::size_t mapped_bytes = round_up(num_bytes_, kHugePageBytes);
  void* data = MAP_FAILED;
  if (mapped_bytes >= num_bytes_ && set_size(fd, mapped_bytes)) {
    data = ::mmap(nullptr, mapped_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  }
  if (data == MAP_FAILED) {
    ::close(fd);
    return false;
  }
  fd_ = fd;
  data_ = static_cast<std::byte*>(data);
  mapped_bytes_ = mapped_bytes;
  page_bytes_ = kHugePageBytes;
  huge_ = true;
  return true;
}

void Arena::check_room() const {
  const MemoryRoom room = available_memory();
  if (num_bytes_ > room.num_bytes) {
    fail(ENOMEM, describe(num_bytes_) + ": only " + std::to_string(room.num_bytes) + " left by " + room.limited_by);
  }
}

// Anonymous memory. A forked child does not have it: with it, the first write here after a fork would move a page away
// from under devices and rings that have it pinned.
void Arena::map_private_pages(bool hugepages) {
  constexpr int kAnonymous = MAP_PRIVATE | MAP_ANONYMOUS;
  page_bytes_ = kHugePageBytes;
  mapped_bytes_ = round_up(num_bytes_, kHugePageBytes);
  void* data = MAP_FAILED;
  if (mapped_bytes_ < num_bytes_) fail(ENOMEM, describe(num_bytes_));
  if (hugepages) {
    constexpr int kReserved = MAP_HUGETLB | (21 << MAP_HUGE_SHIFT);
    data = ::mmap(nullptr, mapped_bytes_, PROT_READ | PROT_WRITE, kAnonymous | kReserved, -1, 0);
    huge_ = data != MAP_FAILED;
  }
  if (!huge_) {
    check_room();
    const bool asks_for_huge = hugepages && gives_huge_pages("/sys/kernel/mm/transparent_hugepage/enabled");
    if (!asks_for_huge) page_bytes_ = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    mapped_bytes_ = round_up(num_bytes_, page_bytes_);
    const std::size_t spare = asks_for_huge ? kHugePageBytes : 0;  // to begin where a huge page does
    data = ::mmap(nullptr, mapped_bytes_ + spare, PROT_READ | PROT_WRITE, kAnonymous, -1, 0);
    if (data == MAP_FAILED) fail(errno, describe(num_bytes_) + ": mmap");
    if (spare != 0) {
      const auto start = reinterpret_cast<std::uintptr_t>(data);
      const std::size_t skipped = round_up(start, kHugePageBytes) - start;
      if (skipped != 0) ::munmap(data, skipped);
      data = reinterpret_cast<void*>(start + skipped);
      if (skipped != spare) ::munmap(static_cast<std::byte*>(data) + mapped_bytes_, spare - skipped);
      huge_ = ::madvise(data, mapped_bytes_, MADV_HUGEPAGE) == 0;
    }
  }
  data_ = static_cast<std::byte*>(data);
  owner_ = ::getpid();
  ::madvise(data_, mapped_bytes_, MADV_DONTFORK);
}

void Arena::map_plain_pages(bool hugepages) {
  check_room();
  const bool asks_for_huge = hugepages && gives_huge_pages("/sys/kernel/mm/transparent_hugepage/shmem_enabled");
  page_bytes_ = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  mapped_bytes_ = round_up(num_bytes_, asks_for_huge ? kHugePageBytes : page_bytes_);
  fd_ = ::memfd_create("tiercel-arena", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd_ < 0) fail(errno, describe(num_bytes_) + ": memfd_create");
  void* data = MAP_FAILED;
  if (set_size(fd_, mapped_bytes_)) {
    data = ::mmap(nullptr, mapped_bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
  }
  if (data == MAP_FAILED) {
    const int error = errno;
    ::close(fd_);
    fail(error, describe(num_bytes_) + ": mmap");
  }
  data_ = static_cast<std::byte*>(data);
  huge_ = asks_for_huge && ::madvise(data_, mapped_bytes_, MADV_HUGEPAGE) == 0;
}

void Arena::prefault(std::size_t start, std::size_t stop) {
  if (start > stop || stop > num_bytes_) {
    throw std::invalid_argument("range [" + std::to_string(start) + ", " + std::to_string(stop) +
                                ") does not lie in the " + describe(num_bytes_));
  }
  if (start == stop) return;
  std::byte* first = data() + start / page_bytes_ * page_bytes_;
  const std::size_t length = static_cast<std::size_t>(data() + round_up(stop, page_bytes_) - first);
  int result = 0;
  do {
    result = ::madvise(first, length, MADV_POPULATE_WRITE);
  } while (result != 0 && (errno == EINTR || errno == EAGAIN));
  if (result == 0) return;
  // EFAULT is what MADV_POPULATE_WRITE says where a plain access would have been answered by SIGBUS.
  if (errno != EINVAL) fail(errno == EFAULT ? ENOMEM : errno, describe(num_bytes_) + ": prefault");
  // An older kernel. fallocate takes the pages, with an error if there are none; touching maps them.
  if (fd_ >= 0 && ::fallocate(fd_, 0, first - data(), static_cast<off_t>(length)) != 0) {
    fail(errno == ENOSPC ? ENOMEM : errno, describe(num_bytes_) + ": fallocate");
  }
  for (std::size_t offset = 0; offset < length; offset += page_bytes_) {
    std::atomic_ref(*reinterpret_cast<unsigned char*>(first + offset)).fetch_or(0, std::memory_order_relaxed);
  }
}

void Arena::close() noexcept {
  if (data_ == nullptr) return;
  // In a forked child something else may lie there by now.
  if (owner_ == 0 || owner_ == ::getpid()) ::munmap(data_, mapped_bytes_);
  if (fd_ >= 0) ::close(fd_);
  data_ = nullptr;
  fd_ = -1;
}

}  // namespace tiercel
