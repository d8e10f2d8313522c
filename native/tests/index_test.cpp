#include "index/index.hpp"

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "check.hpp"
#include "random.hpp"

namespace tiercel {
namespace {

using testing::Random;

constexpr std::size_t kTokensPerBlock = 2;
constexpr std::size_t kBlocksMax = 60;
constexpr std::uint64_t kNumRoots = 3;
const std::vector<std::uint32_t> kCapacities = {120, 300};

Key root_of(std::uint64_t number) {
  Key root{};
  root.bytes[0] = static_cast<std::uint8_t>(number);
  return root;
}

// Sequences that share prefixes, so that runs are split, joined and cut.
std::unique_ptr<Sequence> random_sequence(Random& random) {
  auto sequence = std::make_unique<Sequence>(root_of(random.below(kNumRoots)), kTokensPerBlock);
  const std::size_t shared = random.below(kBlocksMax / 2) * kTokensPerBlock;
  std::vector<std::int32_t> tokens(shared, static_cast<std::int32_t>(random.below(4)));
  tokens.resize(shared + random.below(kBlocksMax / 2) * kTokensPerBlock, static_cast<std::int32_t>(random.below(8)));
  sequence->extend(tokens);
  return sequence;
}

// The calls of the index that these tests make, in one place.
class Caller {
 public:
  Caller(std::shared_ptr<Index> index, std::uint64_t seed) : index_(std::move(index)), random_(seed) {}

  void act() {
    now_s_ += 0.001;
    const std::unique_ptr<Sequence> sequence = random_sequence(random_);
    const std::size_t tier = random_.below(kCapacities.size());
    const std::uint64_t kind = random_.below(100);
    if (kind < 40) {
      Index::Lock lock(index_->mutex());
      matches_.push_back(index_->match(lock, *sequence, sequence->num_blocks(), random_.below(2) == 0, now_s_));
      if (random_.below(4) == 0) index_->truncate(lock, matches_.back(), random_.below(kBlocksMax));
    } else if (kind < 80) {
      reserve(*sequence, tier);
    } else if (kind < 85 && sequence->num_blocks() > 0) {
      Index::Lock lock(index_->mutex());
      index_->drop(lock, *sequence, random_.below(sequence->num_blocks()), tier);
    } else if (kind < 92) {
      Index::Lock lock(index_->mutex());
      index_->evict(lock, tier, {.num_blocks = random_.below(30), .now_s = now_s_});
    } else if (kind < 95) {
      demote();
    } else if (kind == 95) {
      Index::Lock lock(index_->mutex());
      index_->assign(lock, root_of(random_.below(kNumRoots)), random_.below(index_->shares(lock, tier).size()));
    } else if (kind == 96) {
      Index::Lock lock(index_->mutex());
      index_->clear(lock);
    }
    // Outside the lock: their destructors take it.
    if (matches_.size() > 3) matches_.pop_front();
    if (reservations_.size() > 3) reservations_.pop_front();
  }

  void let_go() {
    matches_.clear();
    reservations_.clear();
  }

 private:
  void demote() {
    Index::Lock lock(index_->mutex());
    std::optional<Demotion> made = index_->demote(lock, 0, 1, 2, random_.below(40), now_s_);
    if (!made) return;
    matches_.push_back(std::move(made->match));
    reservations_.push_back(std::move(made->reservation));
    if (random_.below(2) == 0) index_->commit(lock, reservations_.back(), {});
  }

  void reserve(Sequence& sequence, std::size_t tier) {
    sequence.hash_to(sequence.num_blocks());
    Index::Lock lock(index_->mutex());
    reservations_.push_back(
        index_->reserve(lock, sequence, tier, ReserveOptions{1, 0, sequence.num_blocks(), now_s_, 0}));
    Reservation& reservation = reservations_.back();
    const std::uint64_t fate = random_.below(10);
    if (fate == 0) index_->abort(lock, reservation);
    if (fate < 2) return;  // stays open, or was aborted
    const std::size_t num_blocks = reservation.slots.size();
    const auto failed = std::make_unique<bool[]>(num_blocks + 1);
    const bool some_fail = random_.below(3) == 0;
    for (std::size_t block = 0; block < num_blocks; ++block) failed[block] = some_fail && random_.below(20) == 0;
    index_->commit(lock, reservation, std::span<const bool>(failed.get(), num_blocks));
    if (random_.below(2) == 0) index_->release(lock, reservation);
  }

  const std::shared_ptr<Index> index_;
  Random random_;
  double now_s_ = 0;
  std::deque<Match> matches_;
  std::deque<Reservation> reservations_;
};

std::shared_ptr<Index> make_index() {
  IndexOptions options;
  options.capacities = kCapacities;
  return Index::create(options);
}

// Two tenants beside everybody: one with a reserve, one with a limit.
std::shared_ptr<Index> make_shared_index() {
  IndexOptions options;
  options.capacities = kCapacities;
  options.policies = {{.name = "lru"}, {.name = "arc"}};
  options.tenants = {{{40, 150}, {100, 300}}, {{0, 10}, {30, 40}}};
  return Index::create(options);
}

void check_nothing_is_held(Index& index) {
  Index::Lock lock(index.mutex());
  const std::string broken = index.check(lock);
  if (!CHECK(broken.empty())) std::fprintf(stderr, "%s\n", broken.c_str());
  for (std::size_t tier = 0; tier < kCapacities.size(); ++tier) {
    const IndexStats stats = index.stats(lock, tier);
    CHECK(stats.num_pinned == 0 && stats.num_writing == 0);
    CHECK(stats.num_free + stats.num_ready == stats.num_slots);
  }
}

void hold_through_random_operations(const std::shared_ptr<Index>& index) {
  Caller caller(index, testing::seed());
  for (int round = 0; round < 6000; ++round) {
    caller.act();
    if (round % 16 != 0) continue;
    Index::Lock lock(index->mutex());
    const std::string broken = index->check(lock);
    if (!CHECK(broken.empty())) {
      std::fprintf(stderr, "operation %d: %s\n", round, broken.c_str());
      return;
    }
  }
  caller.let_go();
  check_nothing_is_held(*index);
}

TEST(an_index_holds_its_invariants_through_random_operations) { hold_through_random_operations(make_index()); }

TEST(an_index_that_tenants_share_holds_its_invariants_too) { hold_through_random_operations(make_shared_index()); }

TEST(a_root_that_changes_hands_takes_its_blocks_with_it) {
  const std::shared_ptr<Index> index = make_shared_index();
  Caller caller(index, testing::seed());
  for (int round = 0; round < 500; ++round) caller.act();
  caller.let_go();
  {
    Index::Lock lock(index->mutex());
    for (std::uint64_t root = 0; root < kNumRoots; ++root) index->assign(lock, root_of(root), 1);
    for (std::size_t tier = 0; tier < kCapacities.size(); ++tier) {
      CHECK(index->shares(lock, tier)[1].num_held == index->stats(lock, tier).num_ready);
      const std::uint32_t reserve = index->shares(lock, tier)[1].reserve;
      index->evict(lock, tier, {.num_blocks = kCapacities[tier], .now_s = 1e6});
      CHECK(index->shares(lock, tier)[1].num_held <= reserve);
    }
  }
  check_nothing_is_held(*index);
}

TEST(an_index_that_many_threads_use_at_once_loses_nothing) {
  const std::shared_ptr<Index> index = make_index();
  {
    std::vector<std::jthread> threads;
    for (std::uint64_t number = 0; number < 4; ++number) {
      threads.emplace_back([&index, number] {
        Caller caller(index, testing::seed() + number);
        for (int round = 0; round < 3000; ++round) caller.act();
      });
    }
  }
  check_nothing_is_held(*index);
}

TEST(what_an_index_exports_another_one_restores) {
  const std::shared_ptr<Index> index = make_index();
  Caller caller(index, testing::seed());
  for (int round = 0; round < 500; ++round) caller.act();
  caller.let_go();
  Index::Lock lock(index->mutex());
  const ExportedBlocks blocks = index->export_blocks(lock, 1);
  const std::shared_ptr<Index> other = make_index();
  {
    Index::Lock other_lock(other->mutex());
    const RestoredBlocks restored{blocks.parents, blocks.keys, blocks.slots};
    const std::vector<bool> taken = other->restore_blocks(other_lock, 1, restored, {});
    CHECK(taken == std::vector<bool>(blocks.keys.size(), true));
    CHECK(other->stats(other_lock, 1).num_ready == index->stats(lock, 1).num_ready);
  }
  check_nothing_is_held(*other);
}

TEST(an_index_takes_any_blocks_that_a_damaged_journal_may_hold) {
  Random random(testing::seed());
  for (int round = 0; round < 200; ++round) {
    const std::size_t count = random.below(80);
    std::vector<Key> parents(count), keys(count);
    std::vector<Slot> slots(count);
    for (std::size_t block = 0; block < count; ++block) {  // few distinct ones: cycles, twins, orphans
      parents[block].bytes[0] = static_cast<std::uint8_t>(random.below(40));
      keys[block].bytes[0] = static_cast<std::uint8_t>(random.below(40));
      slots[block] = static_cast<Slot>(random.below(kCapacities[1]));
    }
    const std::vector<Key> roots(random.below(2));
    const std::shared_ptr<Index> index = make_index();
    {
      Index::Lock lock(index->mutex());
      index->restore_blocks(lock, 1, {parents, keys, slots}, roots);
    }
    check_nothing_is_held(*index);
  }
}

}  // namespace
}  // namespace tiercel
