#include <vector>

#include "check.hpp"

#ifdef TIERCEL_TEST_EXPECTS_LIBURING

#include <sys/mman.h>

#include <cerrno>

#include "disk/uring_buffers.hpp"
#include "random.hpp"

namespace tiercel::disk {
namespace {

constexpr std::uint64_t kMiB = 1 << 20;

// Memory of eight pieces of 64 MiB and one of 2 MiB, of which few pages are ever touched but by registering.
class Mapping {
 public:
  Mapping() {
    data_ = static_cast<std::byte*>(
        ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  }
  ~Mapping() { ::munmap(data_, kBytes); }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  IoMemory memory() const { return {reinterpret_cast<std::uintptr_t>(data_), kBytes, kMiB}; }
  iovec segment(std::uint64_t start, std::uint64_t bytes) const { return {data_ + start, bytes}; }

  static constexpr std::uint64_t kBytes = 514 * kMiB;

 private:
  std::byte* data_;
};

std::unique_ptr<Ring> make_ring() {
  int error = 0;
  return Ring::create({}, 4, error);  // nothing where the kernel forbids io_uring
}

TEST(a_segment_is_found_in_the_piece_that_holds_it_whole) {
  const Mapping mapping;
  UringBuffers buffers;
  buffers.add(mapping.memory());
  const auto ring = make_ring();
  if (!ring) return;
  CHECK(buffers.find(*ring, mapping.segment(0, kMiB)) == 0);
  CHECK(buffers.find(*ring, mapping.segment(512 * kMiB, 2 * kMiB)) == 8);  // the last, shorter piece
  CHECK(buffers.registered_bytes() == 66 * kMiB);
  CHECK(!buffers.find(*ring, mapping.segment(63 * kMiB, 2 * kMiB)));   // crosses from one piece to the next
  CHECK(!buffers.find(*ring, mapping.segment(513 * kMiB, 2 * kMiB)));  // crosses the end
  CHECK(!buffers.find(*ring, mapping.segment(514 * kMiB, kMiB)));      // lies behind it
  CHECK(buffers.registered_bytes() == 66 * kMiB);
  CHECK(buffers.reason().empty());
}

TEST(rings_share_what_is_registered_or_register_for_themselves) {
  for (const bool shares : {true, false}) {
    const Mapping mapping;
    UringBuffers buffers(shares);
    buffers.add(mapping.memory());
    std::vector<std::unique_ptr<Ring>> rings;
    for (int i = 0; i < 2; ++i) rings.push_back(make_ring());
    if (!rings[0]) return;
    const iovec last = mapping.segment(512 * kMiB, kMiB);
    for (const auto& ring : rings) CHECK(buffers.find(*ring, last) == 8 && ring->holds_buffer(8));
    const std::uint64_t bytes = buffers.registered_bytes();
    CHECK(shares ? bytes == 2 * kMiB || bytes == 4 * kMiB : bytes == 4 * kMiB);  // a kernel before 6.13 shares nothing
    buffers.remove(mapping.memory().address, rings);
    CHECK(buffers.registered_bytes() == 0);
    for (const auto& ring : rings) CHECK(!ring->holds_buffer(8) && !buffers.find(*ring, last));
  }
}

TEST(numbers_of_forgotten_memory_are_taken_again) {
  const Mapping first, second, third;
  UringBuffers buffers;
  for (const Mapping* each : {&first, &second, &third}) buffers.add(each->memory());
  std::vector<std::unique_ptr<Ring>> rings;
  rings.push_back(make_ring());
  if (!rings[0]) return;
  const auto last_of = [&](const Mapping& mapping) {
    return buffers.find(*rings[0], mapping.segment(512 * kMiB, 2 * kMiB));
  };
  CHECK(last_of(first) == 8 && last_of(second) == 17 && last_of(third) == 26);
  buffers.remove(second.memory().address, rings);
  CHECK(!last_of(second));
  buffers.add(second.memory());
  CHECK(last_of(first) == 8 && last_of(second) == 17 && last_of(third) == 26);
}

TEST(memory_that_cannot_be_pinned_is_refused_by_name_and_once) {
  const Mapping mapping;
  UringBuffers buffers;
  buffers.add({reinterpret_cast<std::uintptr_t>(mapping.segment(0, 1).iov_base), Mapping::kBytes, kMiB});
  const auto ring = make_ring();
  if (!ring) return;
  ::mprotect(mapping.segment(0, 1).iov_base, 64 * kMiB, PROT_NONE);
  CHECK(!buffers.find(*ring, mapping.segment(0, kMiB)));
  CHECK(buffers.reason().find("Bad address") != std::string::npos);
  ::mprotect(mapping.segment(0, 1).iov_base, 64 * kMiB, PROT_READ | PROT_WRITE);
  CHECK(!buffers.find(*ring, mapping.segment(0, kMiB)));
  CHECK(buffers.registered_bytes() == 0);
}

TEST(memory_beyond_all_numbers_is_refused_by_name) {
  UringBuffers buffers;
  buffers.add({4096, std::uint64_t{5000} << 30, kMiB});
  CHECK(!buffers.reason().empty());
}

}  // namespace
}  // namespace tiercel::disk

#endif
