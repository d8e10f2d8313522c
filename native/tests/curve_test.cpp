// Passes over traces against the plainest form of each: a list of blocks for LRU, bits one by one, sums in order.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "check.hpp"
#include "curve/belady.hpp"
#include "curve/block_tree.hpp"
#include "curve/lru_pass.hpp"
#include "curve/ranked_bits.hpp"
#include "curve/sampled_pass.hpp"
#include "curve/use_order.hpp"
#include "random.hpp"

namespace tiercel {
namespace {

using testing::Random;

constexpr std::int64_t kTokensPerBlock = 4;

struct Trace {
  std::vector<BlockId> parents;
  std::vector<BlockId> leaves;
  std::vector<std::int64_t> input_tokens;
};

std::vector<BlockId> path_of(const Trace& trace, BlockId leaf) {
  std::vector<BlockId> path;
  collect_path(trace.parents, leaf, path);
  return path;
}

// Requests that end at random blocks of a random tree; some have no block.
Trace random_trace(Random& random, std::size_t num_blocks, std::size_t num_requests) {
  Trace trace;
  for (std::size_t block = 0; block < num_blocks; ++block) {
    const bool is_long = block > 0 && random.below(4) > 0;
    trace.parents.push_back(static_cast<BlockId>(is_long ? block - 1 : random.below(block + 1)) - (is_long ? 0 : 1));
  }
  for (std::size_t request = 0; request < num_requests; ++request) {
    const BlockId leaf = static_cast<BlockId>(random.below(num_blocks + 1)) - 1;
    const auto length = static_cast<std::int64_t>(path_of(trace, leaf).size());
    trace.leaves.push_back(leaf);
    trace.input_tokens.push_back(length * kTokensPerBlock - (length == 0 ? 0 : random.below(kTokensPerBlock)));
  }
  return trace;
}

// Of each request the distances of its blocks, the root's first; 0 for a block never used.
std::vector<std::vector<std::size_t>> plain_distances(const Trace& trace) {
  std::vector<std::vector<std::size_t>> distances;
  std::vector<BlockId> stack;
  for (const BlockId leaf : trace.leaves) {
    const std::vector<BlockId> path = path_of(trace, leaf);
    std::vector<std::size_t>& here = distances.emplace_back();
    for (auto block = path.rbegin(); block != path.rend(); ++block) {
      const auto found = std::find(stack.begin(), stack.end(), *block);
      here.push_back(found == stack.end() ? 0 : 1 + static_cast<std::size_t>(found - stack.begin()));
    }
    for (const BlockId block : path) {
      std::erase(stack, block);
      stack.insert(stack.begin(), block);
    }
  }
  return distances;
}

TEST(bits_count_what_is_set_before_each_of_them) {
  Random random(testing::seed());
  constexpr std::size_t kBits = 3000;
  RankedBits bits(kBits);
  std::vector<bool> plain(kBits);
  const auto agree = [&] {
    std::size_t count = 0;
    for (std::size_t at = 0; at < kBits; ++at) {
      if (bits.count_before(at) != count) return false;
      count += plain[at] ? 1 : 0;
    }
    return bits.count() == count && bits.count_from(0) == count && bits.count_before(kBits) == count;
  };
  for (int round = 0; round < 200; ++round) {
    const std::size_t first = random.below(kBits);
    std::size_t count = 1;
    while (first + count < kBits && plain[first + count] == plain[first] && random.below(500) > 0) ++count;
    plain[first] ? bits.clear(first, count) : bits.set(first, count);
    for (std::size_t at = first; at < first + count; ++at) plain[at] = !plain[at];
    CHECK(agree());
  }
  bits.clear_all();
  for (std::size_t at = 0; at < kBits; ++at) {
    plain[at] = random.below(3) == 0;
    if (plain[at]) bits.put(at);
  }
  bits.recount();
  CHECK(agree());
}

TEST(a_pass_counts_every_distance_of_a_plain_list) {
  Random random(testing::seed());
  for (const std::size_t num_blocks : {std::size_t{1}, std::size_t{7}, std::size_t{60}, std::size_t{400}}) {
    const Trace trace = random_trace(random, num_blocks, 600);
    LruPass pass(trace.parents, kTokensPerBlock);
    pass.run(trace.leaves, trace.input_tokens, {});
    const LruHits hits = pass.hits();
    const auto distances = plain_distances(trace);
    for (std::size_t capacity = 0; capacity < hits.blocks.size(); ++capacity) {
      std::int64_t blocks = 0;
      double shares = 0;
      for (const auto& of_request : distances) {
        const auto here = std::count_if(of_request.begin(), of_request.end(), [capacity](std::size_t distance) {
          return distance > 0 && distance <= capacity;
        });
        blocks += here;
        if (!of_request.empty()) shares += static_cast<double>(here) / static_cast<double>(of_request.size());
      }
      CHECK(hits.blocks[capacity] == blocks);
      CHECK(std::abs(hits.request_shares[capacity] - shares) < 1e-9);
    }
  }
}

TEST(a_sample_of_everything_has_the_distances_of_a_plain_list) {
  Random random(testing::seed());
  const Trace trace = random_trace(random, 50, 400);  // distances below 64 are counted exactly
  std::vector<std::uint8_t> groups(trace.parents.size());
  for (std::uint8_t& group : groups) group = static_cast<std::uint8_t>(random.below(SampledHits::kNumGroups));
  const std::vector<double> ones(trace.leaves.size(), 1.0);
  SampledPass pass(trace.parents, groups, 1.0, kTokensPerBlock);
  pass.run({trace.leaves, ones, ones}, {});
  const auto distances = plain_distances(trace);
  for (std::size_t capacity = 0; capacity < 60; ++capacity) {
    std::vector<double> plain(SampledHits::kNumGroups);
    for (std::size_t request = 0; request < trace.leaves.size(); ++request) {
      const std::vector<BlockId> path = path_of(trace, trace.leaves[request]);
      for (std::size_t depth = 0; depth < path.size(); ++depth) {
        const std::size_t distance = distances[request][depth];
        if (distance > 0 && distance <= capacity) {
          plain[groups[static_cast<std::size_t>(path[path.size() - 1 - depth])]] += 1;
        }
      }
    }
    for (std::size_t group = 0; group < SampledHits::kNumGroups; ++group) {
      CHECK(std::abs(pass.hits().hits(group, capacity)[0] - plain[group]) < 1e-9);
    }
  }
}

TEST(a_sampled_block_counts_for_as_many_as_the_rate_says_and_a_hot_one_once) {
  // Block 0 is hot; 1 and 2 are samples of a half. Between the first uses of 0: 1 and 2 once, which count for two each.
  // Between the last uses of 1: 0 twice, which counts once.
  const std::vector<BlockId> parents{kNoBlockId, kNoBlockId, kNoBlockId};
  const std::vector<std::uint8_t> groups{SampledHits::kHot, 0, 1};
  const std::vector<BlockId> leaves{0, 1, 2, 0, 1, 0, 0, 1};
  const std::vector<double> ones(leaves.size(), 1.0);
  SampledPass pass(parents, groups, 0.5, 1.0);
  pass.run({leaves, ones, ones}, {});
  const SampledHits& hits = pass.hits();
  CHECK(hits.hits(SampledHits::kHot, 1)[0] == 1);
  CHECK(hits.hits(SampledHits::kHot, 2)[0] == 1);
  CHECK(hits.hits(SampledHits::kHot, 3)[0] == 2);
  CHECK(hits.hits(SampledHits::kHot, 4)[0] == 2);
  CHECK(hits.hits(SampledHits::kHot, 5)[0] == 3);
  CHECK(hits.hits(0, 1)[0] == 0);
  CHECK(hits.hits(0, 2)[0] == 1);
  CHECK(hits.hits(0, 3)[0] == 1);  // behind its first use came 2, for two, and 0, for one
  CHECK(hits.hits(0, 4)[0] == 2);
  CHECK(hits.uses(0)[0] == 3);
}

TEST(the_tree_of_blocks_kept_hangs_each_below_its_nearest_ancestor) {
  const std::vector<BlockId> parents{kNoBlockId, 0, 1, 2, kNoBlockId, 1};
  const std::vector<std::uint8_t> kept{0, 1, 0, 1, 0, 1};
  const std::vector<BlockId> nearest = nearest_kept(parents, kept);
  CHECK((nearest == std::vector<BlockId>{kNoBlockId, 0, 0, 1, kNoBlockId, 2}));
  const std::vector<BlockId> leaves{3, 5, kNoBlockId, 3};
  CHECK((count_uses(parents, leaves) == std::vector<std::int32_t>{3, 3, 2, 2, 0, 1}));
}

TEST(belady_with_room_for_everything_hits_every_block_used_before_and_with_none_nothing) {
  Random random(testing::seed());
  const Trace trace = random_trace(random, 200, 500);
  const Belady belady(trace.parents, trace.leaves, {});
  const auto distances = plain_distances(trace);
  const std::vector<std::int32_t> all = belady.hits(trace.parents.size(), {});
  const std::vector<std::int32_t> none = belady.hits(0, {});
  for (std::size_t request = 0; request < trace.leaves.size(); ++request) {
    const auto& here = distances[request];
    CHECK(all[request] == std::count_if(here.begin(), here.end(), [](std::size_t distance) { return distance > 0; }));
    CHECK(none[request] == 0);
  }
}

TEST(what_a_pulse_throws_ends_the_pass) {
  const std::vector<BlockId> parents{kNoBlockId};
  const std::vector<BlockId> leaves(std::size_t{1} << 22, 0);
  const Pulse pulse = [] { throw std::runtime_error("enough"); };
  CHECK_THROWS(std::runtime_error, Belady(parents, leaves, pulse));
  const std::vector<std::int64_t> tokens(leaves.size(), 1);
  LruPass pass(parents, 1);
  CHECK_THROWS(std::runtime_error, pass.run(leaves, tokens, pulse));
}

TEST(a_tree_that_is_none_is_refused) {
  const std::vector<BlockId> cycle{1, 0};
  const std::vector<BlockId> below{-2};
  const std::vector<BlockId> fine{kNoBlockId, 0};
  const std::vector<BlockId> beyond{2};
  const std::vector<std::int64_t> tokens{8};
  CHECK_THROWS(std::invalid_argument, LruPass(cycle, 1));
  CHECK_THROWS(std::invalid_argument, LruPass(below, 1));
  CHECK_THROWS(std::invalid_argument, LruPass(fine, 0));
  CHECK_THROWS(std::invalid_argument, LruPass(fine, 1).run(beyond, tokens, {}));
  CHECK_THROWS(std::invalid_argument, Belady(fine, beyond, {}));
  CHECK_THROWS(std::invalid_argument, count_uses(fine, beyond));
  CHECK_THROWS(std::invalid_argument, nearest_kept(fine, std::vector<std::uint8_t>{1}));
  const std::vector<std::uint8_t> groups{0, SampledHits::kNumGroups};
  CHECK_THROWS(std::invalid_argument, SampledPass(fine, groups, 0.5, 1));
  const std::vector<BlockId> deep{1};
  const std::vector<std::int64_t> short_tokens{1};
  CHECK_THROWS(std::invalid_argument, LruPass(fine, 1).run(deep, short_tokens, {}));
}

}  // namespace
}  // namespace tiercel
