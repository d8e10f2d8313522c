#include <algorithm>
#include <atomic>
#include <cstring>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "check.hpp"
#include "hashing/chain.hpp"
#include "hashing/sequence.hpp"
#include "hashing/sha256.hpp"
#include "random.hpp"

namespace tiercel {
namespace {

using testing::Random;

constexpr Key kRoot{{1, 2, 3}};

std::vector<std::int32_t> random_tokens(Random& random, std::size_t count) {
  std::vector<std::int32_t> tokens(count);
  for (std::int32_t& token : tokens) token = static_cast<std::int32_t>(random.below(std::uint64_t{1} << 31));
  return tokens;
}

std::vector<Key> chain(const std::vector<std::int32_t>& tokens, std::size_t tokens_per_block, Sha256Path path) {
  std::vector<Key> keys(tokens.size() / tokens_per_block);
  chain_keys(kRoot, std::span(tokens).first(keys.size() * tokens_per_block), tokens_per_block, keys.data(), path);
  return keys;
}

TEST(a_digest_is_the_same_however_its_data_is_cut_and_by_every_path) {
  Random random(testing::seed());
  for (int round = 0; round < 200; ++round) {
    std::vector<std::byte> data(random.below(400));
    for (std::byte& byte : data) byte = static_cast<std::byte>(random.next());
    Sha256 whole(Sha256Path::kPortable);
    whole.update(data);
    Sha256 cut;
    for (std::size_t at = 0; at < data.size();) {
      const std::size_t length = 1 + random.below(data.size() - at);
      cut.update(std::span(data).subspan(at, length));
      at += length;
    }
    CHECK(whole.finish() == cut.finish());
  }
}

TEST(keys_are_those_of_the_chain_block_by_block) {
  Random random(testing::seed());
  for (const std::size_t tokens_per_block : {1, 2, 16, 64, 256}) {
    const auto tokens = random_tokens(random, tokens_per_block * (1 + random.below(20)));
    const std::vector<Key> keys = chain(tokens, tokens_per_block, fastest_sha256_path());
    CHECK(keys == chain(tokens, tokens_per_block, Sha256Path::kPortable));
    Key parent = kRoot;
    for (std::size_t block = 0; block < keys.size(); ++block) {
      parent = chain_key(parent, std::span(tokens).subspan(block * tokens_per_block, tokens_per_block), {});
      CHECK(parent == keys[block]);
    }
  }
}

TEST(a_sequence_that_grows_in_any_steps_has_the_keys_of_the_whole) {
  Random random(testing::seed());
  for (int round = 0; round < 50; ++round) {
    const std::size_t tokens_per_block = std::size_t{1} << random.below(6);
    const auto tokens = random_tokens(random, random.below(3000));
    const std::vector<Key> expected = chain(tokens, tokens_per_block, fastest_sha256_path());
    Sequence sequence(kRoot, tokens_per_block);
    for (std::size_t at = 0; at < tokens.size();) {
      const std::size_t length = 1 + random.below(tokens.size() - at);
      sequence.extend(std::span(tokens).subspan(at, length));
      at += length;
      if (random.below(2) == 0) sequence.hash_to(random.below(sequence.num_blocks() + 1));
    }
    CHECK(sequence.num_blocks() == expected.size());
    const std::size_t start = random.below(expected.size() + 1);
    const std::size_t stop = start + random.below(expected.size() - start + 1);
    std::vector<Key> keys(stop - start);
    sequence.copy_keys(start, stop, keys.data());
    CHECK(std::equal(keys.begin(), keys.end(), expected.begin() + static_cast<std::ptrdiff_t>(start)));
    CHECK(sequence.parent_key(start) == (start == 0 ? kRoot : expected[start - 1]));
    CHECK_THROWS(std::invalid_argument, sequence.hash_to(sequence.num_blocks() + 1));
  }
}

TEST(a_token_out_of_range_leaves_a_sequence_as_it_was) {
  Sequence sequence(kRoot, 2);
  sequence.extend(std::vector<std::int32_t>{1, 2, 3});
  CHECK_THROWS(std::invalid_argument, sequence.extend(std::vector<std::int32_t>{4, -1}));
  CHECK_THROWS(std::invalid_argument, sequence.extend(std::vector<std::int64_t>{4, std::int64_t{1} << 31}));
  CHECK(sequence.num_tokens() == 3);
}

TEST(many_threads_may_grow_hash_and_read_one_sequence) {
  Random random(testing::seed());
  const auto tokens = random_tokens(random, 20'000);
  const std::vector<Key> expected = chain(tokens, 4, fastest_sha256_path());
  Sequence sequence(kRoot, 4);
  std::atomic<bool> grown = false;
  std::atomic<int> num_wrong = 0;
  std::vector<std::jthread> readers;
  for (int number = 0; number < 3; ++number) {
    readers.emplace_back([&, number] {
      Random own(testing::seed() + static_cast<std::uint64_t>(number));
      for (bool last = false; !last;) {
        last = grown;
        const std::size_t stop = sequence.num_blocks();
        const std::size_t start = own.below(stop + 1);
        const std::span<const Key> keys = sequence.stable_keys(start, stop);
        num_wrong += !std::equal(keys.begin(), keys.end(), expected.begin() + static_cast<std::ptrdiff_t>(start));
      }
    });
  }
  for (std::size_t at = 0; at < tokens.size();) {
    const std::size_t length = std::min<std::size_t>(tokens.size() - at, 1 + random.below(300));
    sequence.extend(std::span(tokens).subspan(at, length));
    at += length;
  }
  grown = true;
  readers.clear();
  CHECK(num_wrong == 0);
  CHECK(sequence.num_blocks() == expected.size());
}

}  // namespace
}  // namespace tiercel
