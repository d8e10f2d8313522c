#include "disk/block_files.hpp"

#include <sys/mman.h>

#include <atomic>
#include <cstring>
#include <map>
#include <numeric>
#include <stdexcept>
#include <thread>
#include <vector>

#include "check.hpp"
#include "random.hpp"

namespace tiercel::disk {
namespace {

using testing::Random;

constexpr std::uint64_t kBlockBytes = 5000;
constexpr std::uint64_t kSlotBytes = 8192;

// Page-aligned memory for blocks.
class Blocks {
 public:
  explicit Blocks(std::size_t count) : count_(count) {
    data_ =
        static_cast<std::byte*>(::mmap(nullptr, bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  }
  ~Blocks() { ::munmap(data_, bytes()); }
  Blocks(const Blocks&) = delete;
  Blocks& operator=(const Blocks&) = delete;
  IoMemory memory() const { return {reinterpret_cast<std::uintptr_t>(data_), bytes(), kSlotBytes}; }
  std::byte* at(std::size_t block) const { return data_ + block * kSlotBytes; }
  std::vector<std::uint64_t> addresses(std::size_t count) const {
    std::vector<std::uint64_t> all;
    for (std::size_t block = 0; block < count; ++block) all.push_back(reinterpret_cast<std::uintptr_t>(at(block)));
    return all;
  }
  void fill(std::size_t block, std::uint64_t content) {
    for (std::size_t at_byte = 0; at_byte + 8 <= kBlockBytes; at_byte += 8) {
      std::memcpy(at(block) + at_byte, &content, sizeof content);
    }
  }
  bool holds(std::size_t block, std::uint64_t content) const {
    for (std::size_t at_byte = 0; at_byte + 8 <= kBlockBytes; at_byte += 8) {
      if (std::memcmp(at(block) + at_byte, &content, sizeof content) != 0) return false;
    }
    return true;
  }

 private:
  std::size_t bytes() const { return count_ * kSlotBytes; }
  std::size_t count_;
  std::byte* data_;
};

BlockFilesOptions options_in(const testing::TemporaryFolder& folder, std::uint32_t num_slots, EngineChoice engine) {
  BlockFilesOptions options{{folder / "a", folder / "b"}, num_slots, kBlockBytes, kSlotBytes, 4};
  options.engine = engine;
  return options;
}

struct Written {
  std::uint64_t content, seed, checksum;
};

// Writes and reads random sets of the slots [first, first + count), and holds them against a map. Every few rounds the
// memory is registered, or no longer, if that is asked for.
void work(BlockFiles& files, std::uint32_t first, std::uint32_t count, std::uint64_t seed, int rounds,
          bool registers = false) {
  Random random(seed);
  Blocks blocks(count);
  const IoMemory memory = blocks.memory();
  std::map<std::uint32_t, Written> model;
  for (int round = 0; round < rounds; ++round) {
    if (registers && round % 8 == 0) files.use_memory(memory);
    if (registers && round % 8 == 6) files.forget_memory(memory.address);
    std::vector<std::uint32_t> slots(count);
    std::iota(slots.begin(), slots.end(), first);
    for (std::size_t i = count - 1; i > 0; --i) std::swap(slots[i], slots[random.below(i + 1)]);
    slots.resize(1 + random.below(count));
    std::vector<std::uint64_t> seeds(slots.size()), checksums(slots.size());
    std::vector<std::int32_t> errors(slots.size(), 99);
    if (random.below(2) == 0) {
      for (std::size_t i = 0; i < slots.size(); ++i) {
        seeds[i] = random.next();
        model[slots[i]] = {random.next(), seeds[i], 0};
        blocks.fill(i, model[slots[i]].content);
      }
      files.write(slots, blocks.addresses(slots.size()), seeds, errors, checksums);
      for (std::size_t i = 0; i < slots.size(); ++i) model[slots[i]].checksum = checksums[i];
    } else {
      std::erase_if(slots, [&](std::uint32_t slot) { return !model.contains(slot); });
      errors.resize(slots.size());
      seeds.clear();
      checksums.clear();
      for (const std::uint32_t slot : slots) {
        seeds.push_back(model[slot].seed);
        checksums.push_back(model[slot].checksum);
      }
      const bool spoils = !slots.empty() && random.below(4) == 0;
      if (spoils) ++checksums[0];
      files.read(slots, blocks.addresses(slots.size()), seeds, checksums, errors);
      for (std::size_t i = 0; i < slots.size(); ++i) CHECK(blocks.holds(i, model[slots[i]].content));
      if (spoils) CHECK(std::exchange(errors[0], 0) == kChecksumMismatch);
    }
    CHECK(errors == std::vector<std::int32_t>(slots.size(), 0));
  }
  files.forget_memory(memory.address);
}

TEST(blocks_read_back_as_written_by_every_engine) {
  for (const EngineChoice engine : {EngineChoice::kThreads, EngineChoice::kAuto}) {
    const testing::TemporaryFolder folder;
    BlockFiles files(options_in(folder, 33, engine));
    work(files, 0, 33, testing::seed(), 60);
    files.sync();
  }
}

TEST(calls_from_many_threads_do_not_meet) {
  for (const EngineChoice engine : {EngineChoice::kThreads, EngineChoice::kAuto}) {
    const testing::TemporaryFolder folder;
    BlockFiles files(options_in(folder, 4 * 16, engine));
    std::vector<std::jthread> threads;
    for (std::uint32_t number = 0; number < 4; ++number) {
      threads.emplace_back([&files, number] { work(files, number * 16, 16, testing::seed() + number, 30); });
    }
  }
}

TEST(memory_is_registered_and_forgotten_while_others_transfer) {
  const testing::TemporaryFolder folder;
  BlockFiles files(options_in(folder, 4 * 16, EngineChoice::kAuto));
  std::vector<std::jthread> threads;
  for (std::uint32_t number = 0; number < 4; ++number) {
    threads.emplace_back([&files, number] { work(files, number * 16, 16, testing::seed() + number, 40, true); });
  }
  threads.clear();
  CHECK(files.registered_bytes() == 0);
  CHECK(files.memory_reason().empty());
}

TEST(what_does_not_fit_is_refused_before_anything_moves) {
  const testing::TemporaryFolder folder;
  BlockFiles files(options_in(folder, 4, EngineChoice::kThreads));
  const Blocks blocks(1);
  std::vector<std::uint64_t> one(1), addresses = blocks.addresses(1);
  std::vector<std::int32_t> errors(1);
  CHECK_THROWS(std::invalid_argument, files.write(std::vector<std::uint32_t>{4}, addresses, one, errors, one));
  ++addresses[0];
  CHECK_THROWS(std::invalid_argument, files.write(std::vector<std::uint32_t>{0}, addresses, one, errors, one));
  BlockFilesOptions odd = options_in(folder, 4, EngineChoice::kThreads);
  odd.slot_bytes = 5000;
  CHECK_THROWS(std::invalid_argument, BlockFiles{odd});
  BlockFilesOptions nowhere = options_in(folder, 4, EngineChoice::kThreads);
  nowhere.paths = {folder / "nothing/here"};
  CHECK_THROWS(FileError, BlockFiles{nowhere});
}

}  // namespace
}  // namespace tiercel::disk
