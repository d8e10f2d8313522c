// Memory of this process alone, or of a memfd that several processes map: one mapping, huge pages where the host gives
// them, which it does to private memory more often than to shared memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace tiercel {

struct ArenaOptions {
  std::size_t num_bytes;
  bool hugepages =
      true;            // reserved ones (hugetlb) if enough are free, else transparent ones if memory of its kind does
  bool shared = true;  // other processes may map it; else they cannot, nor do forked children have it
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

  // std::invalid_argument once the arena is closed, and for the descriptor if it is not shared.
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
  void map_private_pages(bool hugepages);
  void check_room() const;

  std::size_t num_bytes_;
  std::size_t mapped_bytes_ = 0;
  std::size_t page_bytes_ = 0;
  std::byte* data_ = nullptr;
  int fd_ = -1;
  int owner_ = 0;  // the process that has it, if it is not shared
  bool huge_ = false;
};

}  // namespace tiercel
