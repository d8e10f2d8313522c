#include "disk/journal.hpp"

#include <atomic>
#include <mutex>
#include <stdexcept>
#include <thread>

#include "check.hpp"
#include "journal_samples.hpp"

namespace tiercel::disk {
namespace {

using testing::Mappings;
using testing::Random;

constexpr std::uint32_t kNumSlots = 50;

void check_replay(const Replay& replay, const Mappings& model) {
  CHECK(replay.mappings.size() == model.size());
  CHECK(replay.num_corrupt == 0 && replay.torn_bytes == 0 && replay.num_out_of_range == 0);
  for (const Mapping& mapping : replay.mappings) {
    const auto expected = model.find(mapping.slot);
    CHECK(expected != model.end() && testing::is_same(expected->second, mapping));
  }
}

TEST(a_journal_recovers_what_a_plain_map_holds) {
  Random random(testing::seed());
  for (int round = 0; round < 20; ++round) {
    const testing::TemporaryFolder folder;
    Mappings model;
    for (int life = 0; life < 4; ++life) {
      Journal journal(folder.path(), kNumSlots);
      check_replay(journal.recover(), model);
      for (std::uint64_t left = random.below(60); left > 0; --left) {
        testing::record_something(journal, model, random, kNumSlots);
      }
      if (random.below(2) == 0) journal.sync();
    }
    check_replay(replay_journal(folder.path(), kNumSlots), model);
  }
}

TEST(a_journal_is_used_in_order_and_in_a_directory) {
  const testing::TemporaryFolder folder;
  Journal journal(folder.path(), kNumSlots);
  CHECK_THROWS(std::logic_error, journal.free(std::vector<std::uint32_t>{1}));
  journal.recover();
  CHECK_THROWS(std::logic_error, journal.recover());
  CHECK_THROWS(std::logic_error, journal.write_checkpoint({}));
  CHECK_THROWS(FileError, Journal(folder / "nothing", kNumSlots));
}

TEST(threads_may_append_sync_and_checkpoint_at_once) {
  const testing::TemporaryFolder folder;
  constexpr std::uint32_t kSlotsPerThread = 20;
  std::mutex model_mutex;  // orders records and the checkpoints that stand for them, as the tier does
  Mappings model;
  {
    Journal journal(folder.path(), 3 * kSlotsPerThread);
    journal.recover();
    std::atomic<bool> done = false;
    std::vector<std::jthread> threads;
    for (std::uint32_t number = 0; number < 3; ++number) {
      threads.emplace_back([&, number] {
        Random random(testing::seed() + number);
        for (int round = 0; round < 300; ++round) {
          const std::uint32_t slot =
              number * kSlotsPerThread + static_cast<std::uint32_t>(random.below(kSlotsPerThread));
          const Mapping mapping{testing::random_key(random), testing::random_key(random), slot, random.next()};
          const std::lock_guard lock(model_mutex);
          journal.put(mapping.parent, std::span(&mapping.key, 1), std::span(&mapping.slot, 1),
                      std::span(&mapping.checksum, 1));
          model[slot] = mapping;
        }
      });
    }
    std::jthread syncer([&] {
      while (!done) {
        journal.sync();
        CHECK(journal.appended_bytes() < (std::uint64_t{1} << 30));
        CHECK(journal.num_segments() < 1000);
      }
    });
    for (int round = 0; round < 20; ++round) {
      std::vector<Mapping> mappings;
      {
        const std::lock_guard lock(model_mutex);
        journal.begin_checkpoint();
        for (const auto& [slot, mapping] : model) mappings.push_back(mapping);
      }
      journal.write_checkpoint(mappings);
    }
    threads.clear();
    done = true;
  }
  check_replay(replay_journal(folder.path(), 3 * kSlotsPerThread), model);
}

}  // namespace
}  // namespace tiercel::disk
