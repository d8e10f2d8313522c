// Memory that several processes map: one memfd, one mapping, huge pages where the host gives them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace tiercel {

struct ArenaOptions {
  std::size_t num_bytes;
  bool hugepages =
      true;  // reserved ones (hugetlb) if enough are free, else transparent ones if shared memory gets them
};

// Life: constructed (address space and zero pages only) -> prefaulted, by ranges -> closed.
// Nothing here ends in SIGBUS later: more than the machine and its memory limits can hold is refused on construction,
// and prefault fails with an error. Memory that others take between construction and prefault is the operator's to
// prevent. Threads: prefault may run on several at once; close must come after every other use.
class Arena {
 public:
  // std::invalid_argument for num_bytes = 0; std::system_error (ENOMEM among others) with everything undone.
  explicit Arena(const ArenaOptions& options);
  ~Arena();

  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // std::invalid_argument once the arena is closed.
  std::byte* data() const;
  int fd() const;

  std::size_t num_bytes() const noexcept { return num_bytes_; }
  bool huge() const noexcept { return huge_; }

  // Make the pages of [start, stop) resident, keeping what they hold. std::invalid_argument for a range outside the
  // arena, std::system_error when there is no memory left.
  void prefault(std::size_t start, std::size_t stop);

  void close() noexcept;  // idempotent

 private:
  bool map_reserved_huge_pages();
  void map_plain_pages(bool hugepages);

  std::size_t num_bytes_;
  std::size_t mapped_bytes_ = 0;
  std::size_t page_bytes_ = 0;
  std::byte* data_ = nullptr;
  int fd_ = -1;
  bool huge_ = false;
};

}  // namespace tiercel
