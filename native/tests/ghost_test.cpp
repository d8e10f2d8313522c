// The ghost index against an LRU stack of blocks, and under many threads.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <thread>
#include <vector>

#include "check.hpp"
#include "ghost/ghost_index.hpp"
#include "hashing/sequence.hpp"
#include "random.hpp"

namespace tiercel {
namespace {

using testing::Random;

constexpr Key kRoot{{7}};
constexpr std::size_t kTokensPerBlock = 2;

// A prompt's first tokens are those of one of a few shared beginnings, the rest its own.
std::unique_ptr<Sequence> random_prompt(Random& random) {
  std::vector<std::int32_t> tokens(kTokensPerBlock * (1 + random.below(12)));
  Random shared(1 + random.below(4));
  const std::size_t num_shared = random.below(tokens.size() + 1);
  for (std::size_t at = 0; at < tokens.size(); ++at) {
    tokens[at] = static_cast<std::int32_t>((at < num_shared ? shared : random).below(1000));
  }
  auto sequence = std::make_unique<Sequence>(kRoot, kTokensPerBlock);
  sequence->extend(tokens);
  return sequence;
}

// Blocks from the one used last to the one used first, and how deep every block looked up lay.
class LruStack {
 public:
  void look_up(Sequence& sequence) {
    std::vector<Key> keys(sequence.num_blocks());
    sequence.copy_keys(0, keys.size(), keys.data());
    for (const Key& key : keys) {
      const auto found = std::find(stack_.begin(), stack_.end(), key);
      distances_.push_back(found == stack_.end() ? 0 : 1 + static_cast<std::size_t>(found - stack_.begin()));
    }
    for (auto key = keys.rbegin(); key != keys.rend(); ++key) {
      std::erase(stack_, *key);
      stack_.insert(stack_.begin(), *key);
    }
  }
  double hit_rate(std::size_t capacity) const {
    const auto hits = std::count_if(distances_.begin(), distances_.end(),
                                    [capacity](std::size_t distance) { return distance > 0 && distance <= capacity; });
    return static_cast<double>(hits) / static_cast<double>(distances_.size());
  }
  std::size_t num_looked_up() const { return distances_.size(); }

 private:
  std::vector<Key> stack_;
  std::vector<std::size_t> distances_;
};

TEST(a_ghost_of_every_block_is_the_lru_stack_wherever_a_lookup_stopped_hashing) {
  Random random(testing::seed());
  const std::vector<std::uint64_t> capacities{0, 1, 2, 5, 13, 34, 63};
  for (const double hot_share : {0.01, 1.0}) {
    GhostIndex ghost({.sample_rate = 1, .num_samples_max = 4096, .hot_share = hot_share, .span_blocks = {}});
    LruStack stack;
    for (int request = 0; request < 300; ++request) {
      const auto sequence = random_prompt(random);
      sequence->hash_to(random.below(sequence->num_blocks() + 1));
      const std::size_t num_hashed = sequence->num_hashed_blocks();
      for (std::uint64_t poll = random.below(2); poll > 0 && num_hashed == 0; --poll) {
        ghost.observe_hashed(*sequence, sequence->num_blocks());
      }
      ghost.observe_hashed(*sequence, sequence->num_blocks());
      CHECK(sequence->num_hashed_blocks() == num_hashed);
      ghost.insert(*sequence, random.below(sequence->num_blocks() + 1));
      ghost.insert(*sequence, sequence->num_blocks());
      stack.look_up(*sequence);
    }
    CHECK(ghost.stats().num_blocks == stack.num_looked_up());
    const std::vector<HitRate> rates = ghost.curve(capacities);
    for (std::size_t number = 0; number < capacities.size(); ++number) {
      CHECK(std::abs(rates[number].rate - stack.hit_rate(capacities[number])) < 1e-9);
    }
  }
}

TEST(memory_stays_what_it_was_and_samples_stay_within_their_bound) {
  Random random(testing::seed());
  GhostIndex ghost({.sample_rate = 1, .num_samples_max = 64, .hot_share = 1, .span_blocks = 32});
  for (int request = 0; request < 2000; ++request) {
    const auto sequence = random_prompt(random);
    ghost.observe(*sequence, sequence->num_blocks());
    CHECK(ghost.stats().num_samples <= 64);
  }
  CHECK(ghost.stats().num_samples > 0);
  const std::vector<std::uint64_t> beyond{33};
  CHECK_THROWS(std::invalid_argument, ghost.curve(beyond));
  ghost.clear();
  CHECK(ghost.stats().num_blocks == 0);
  CHECK(ghost.stats().num_samples == 0);
}

TEST(many_threads_may_look_up_store_and_read_the_curve_of_shared_sequences) {
  Random random(testing::seed());
  std::vector<std::unique_ptr<Sequence>> sequences;
  std::size_t num_blocks = 0;
  for (int number = 0; number < 200; ++number) {
    sequences.push_back(random_prompt(random));
    num_blocks += sequences.back()->num_blocks();
  }
  for (const std::uint64_t resolution : {0, 64}) {
    GhostIndex ghost({.sample_rate = 0.5,
                      .num_samples_max = 256,
                      .hot_share = 0.01,
                      .span_blocks = {},
                      .window_blocks = 100,
                      .resolution_blocks = resolution});
    {
      std::vector<std::jthread> threads;
      for (int number = 0; number < 4; ++number) {
        threads.emplace_back([&] {
          const std::vector<std::uint64_t> capacities{1, 100};
          for (const auto& sequence : sequences) {
            ghost.observe_hashed(*sequence, sequence->num_blocks());
            ghost.insert(*sequence, sequence->num_blocks());
            ghost.curve(capacities);
          }
        });
      }
    }
    // Each thread counts every block, but what is not hashed yet when two look at it at once is counted once.
    CHECK(ghost.stats().num_blocks >= num_blocks);
    CHECK(ghost.stats().num_blocks <= 4 * num_blocks);
  }
}

// A conversation grows behind one of two beginnings, both hot; the coarse ghost must find where hot blocks end.
TEST(a_coarse_ghost_agrees_with_the_lru_stack_from_twice_its_resolution_on) {
  Random random(testing::seed());
  GhostIndex ghost(
      {.sample_rate = 1, .num_samples_max = 1 << 16, .hot_share = 0.01, .span_blocks = {}, .resolution_blocks = 32});
  LruStack stack;
  for (int request = 0; request < 2000; ++request) {
    std::vector<std::int32_t> tokens;
    const auto beginning = static_cast<std::int32_t>(1 + random.below(2));
    for (std::int32_t token = 0; token < 10; ++token) tokens.push_back(beginning * 100 + token);
    for (int token = 0; token < 8; ++token) tokens.push_back(static_cast<std::int32_t>(1000 + random.below(2)));
    Sequence sequence(kRoot, kTokensPerBlock);
    sequence.extend(std::span<const std::int32_t>(tokens));
    ghost.observe(sequence, sequence.num_blocks());
    stack.look_up(sequence);
  }
  CHECK(ghost.stats().num_hot >= 10);
  const std::vector<std::uint64_t> capacities{64, 128, 256, 1024};
  const std::vector<HitRate> rates = ghost.curve(capacities);
  for (std::size_t number = 0; number < capacities.size(); ++number) {
    CHECK(std::abs(rates[number].rate - stack.hit_rate(capacities[number])) < 0.03);
  }
}

TEST(an_option_out_of_range_is_refused) {
  CHECK_THROWS(std::invalid_argument, GhostIndex({0, 4096, 0.1, {}}));
  CHECK_THROWS(std::invalid_argument, GhostIndex({1, 63, 0.1, {}}));
  CHECK_THROWS(std::invalid_argument, GhostIndex({1, 4096, 1.5, {}}));
  CHECK_THROWS(std::invalid_argument, GhostIndex({1, 4096, 0.1, 0}));
  CHECK_THROWS(std::invalid_argument, GhostIndex({1, 4096, 0.1, {}, 0}));
}

}  // namespace
}  // namespace tiercel
