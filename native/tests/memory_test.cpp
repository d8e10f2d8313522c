#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <thread>
#include <vector>

#include "check.hpp"
#include "memory/arena.hpp"
#include "memory/checksum.hpp"
#include "memory/copy.hpp"
#include "random.hpp"

namespace tiercel {
namespace {

using testing::Random;

std::vector<std::byte> random_bytes(Random& random, std::size_t count) {
  std::vector<std::byte> bytes(count);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random.next());
  return bytes;
}

std::uint64_t address_of(const std::byte* data) { return reinterpret_cast<std::uintptr_t>(data); }

TEST(an_arena_is_prefaulted_by_many_threads_and_keeps_what_it_holds) {
  constexpr std::size_t kBytes = (std::size_t{3} << 20) + 4096;
  Arena arena({kBytes, false});
  arena.data()[0] = std::byte{7};
  arena.data()[kBytes - 1] = std::byte{9};
  {
    std::vector<std::jthread> threads;
    for (std::size_t part = 0; part < 4; ++part) {
      threads.emplace_back(
          [&, part] { arena.prefault(kBytes / 4 * part, part == 3 ? kBytes : kBytes / 4 * (part + 1)); });
    }
  }
  CHECK(arena.data()[0] == std::byte{7});
  CHECK(arena.data()[kBytes - 1] == std::byte{9});
  CHECK_THROWS(std::invalid_argument, arena.prefault(0, kBytes + 1));
  CHECK_THROWS(std::invalid_argument, arena.prefault(2, 1));
  arena.close();
  arena.close();
  CHECK_THROWS(std::invalid_argument, arena.data());
  CHECK_THROWS(std::invalid_argument, Arena({0, false}));
}

TEST(a_checksum_depends_on_every_byte_and_on_the_seed_and_not_on_alignment) {
  Random random(testing::seed());
  for (int round = 0; round < 300; ++round) {
    const std::size_t length = 1 + random.below(round < 250 ? 600 : 20'000);
    const std::vector<std::byte> data = random_bytes(random, length + 64);
    const std::uint64_t value = checksum(std::span(data).first(length), 5);
    std::vector<std::byte> moved(length + 64);
    const std::size_t shift = random.below(64);
    std::copy_n(data.begin(), length, moved.begin() + static_cast<std::ptrdiff_t>(shift));
    const std::span<std::byte> copy = std::span(moved).subspan(shift, length);
    CHECK(checksum(copy, 5) == value);
    CHECK(checksum(copy, 6) != value);
    copy[random.below(length)] ^= static_cast<std::byte>(1 << random.below(8));
    CHECK(checksum(copy, 5) != value);
  }
}

// Pieces of a random layout: `layers` arrays, each block `runs` runs apart by `stride`.
struct Layout {
  std::size_t num_blocks, runs, run_bytes, stride, layers;
  std::vector<std::byte> engine;
  std::vector<CopyPiece> pieces;
  std::size_t block_bytes;

  explicit Layout(Random& random)
      : num_blocks(1 + random.below(6)),
        runs(1 + random.below(5)),
        run_bytes(1 + random.below(3000)),
        stride(run_bytes + random.below(40)),
        layers(1 + random.below(3)),
        engine(random_bytes(random, layers * num_blocks * runs * stride)),
        block_bytes(layers * runs * run_bytes) {
    for (std::size_t layer = 0; layer < layers; ++layer) {
      const std::byte* base = engine.data() + layer * num_blocks * runs * stride;
      const auto number = [](std::size_t value) { return static_cast<std::int64_t>(value); };
      pieces.push_back({static_cast<std::int64_t>(address_of(base)), number(runs * stride),
                        number(layer * runs * run_bytes), 1, 0, 0, number(runs), number(stride), number(run_bytes)});
    }
  }
  const std::byte* run(std::size_t layer, std::size_t block, std::size_t number) const {
    return engine.data() + ((layer * num_blocks + block) * runs + number) * stride;
  }
};

TEST(gathered_blocks_hold_each_run_in_its_place_and_scatter_back) {
  Random random(testing::seed());
  for (int round = 0; round < 60; ++round) {
    Layout layout(random);
    const CopyProgram program(layout.pieces, static_cast<std::int64_t>(layout.block_bytes));
    CHECK(program.bytes_per_block() == layout.block_bytes);
    std::vector<std::vector<std::byte>> slots(layout.num_blocks, std::vector<std::byte>(layout.block_bytes));
    std::vector<std::int64_t> blocks;
    std::vector<std::uint64_t> addresses;
    for (std::size_t block = 0; block < layout.num_blocks; ++block) {
      blocks.push_back(static_cast<std::int64_t>(layout.num_blocks - 1 - block));
      addresses.push_back(address_of(slots[block].data()));
    }
    program.gather(blocks, addresses, 1 + static_cast<int>(random.below(3)));
    const std::vector<std::byte> before = layout.engine;
    for (std::size_t slot = 0; slot < slots.size(); ++slot) {
      for (std::size_t layer = 0; layer < layout.layers; ++layer) {
        for (std::size_t number = 0; number < layout.runs; ++number) {
          const std::byte* held = slots[slot].data() + (layer * layout.runs + number) * layout.run_bytes;
          const std::byte* source = layout.run(layer, static_cast<std::size_t>(blocks[slot]), number);
          CHECK(std::memcmp(held, source, layout.run_bytes) == 0);
        }
      }
    }
    program.scatter(blocks, addresses, 1);
    CHECK(layout.engine == before);  // gaps between runs included
    CHECK_THROWS(std::invalid_argument, program.gather(blocks, std::span(addresses).first(0), 1));
  }
}

TEST(pieces_that_overlap_or_leave_the_slot_are_refused) {
  CopyPiece piece{4096, 64, 0, 1, 0, 0, 1, 0, 64};
  CHECK_THROWS(std::invalid_argument, CopyProgram(std::span(&piece, 1), 63));
  const CopyPiece twice[] = {piece, piece};
  CHECK_THROWS(std::invalid_argument, CopyProgram(twice, 128));
  piece.run_bytes = -1;
  CHECK_THROWS(std::invalid_argument, CopyProgram(std::span(&piece, 1), 64));
}

TEST(blocks_copied_by_many_threads_arrive_whole) {
  Random random(testing::seed());
  constexpr std::size_t kBlockBytes = 300'000;
  std::vector<std::vector<std::byte>> sources, targets;
  std::vector<std::uint64_t> from, to;
  for (int block = 0; block < 16; ++block) {
    sources.push_back(random_bytes(random, kBlockBytes));
    targets.emplace_back(kBlockBytes);
    from.push_back(address_of(sources.back().data()));
    to.push_back(address_of(targets.back().data()));
  }
  copy_blocks(from, to, kBlockBytes, 4);
  CHECK(sources == targets);
}

}  // namespace
}  // namespace tiercel
