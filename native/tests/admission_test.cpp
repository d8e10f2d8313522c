// The admission sketch against exact counts.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "admission/frequency_sketch.hpp"
#include "check.hpp"
#include "random.hpp"

namespace tiercel {
namespace {

using testing::Random;

Key random_key(Random& random) {
  Key key;
  for (std::size_t at = 0; at < Key::kNumBytes; at += sizeof(std::uint64_t)) {
    const std::uint64_t bits = random.next();
    std::memcpy(key.bytes.data() + at, &bits, sizeof bits);
  }
  return key;
}

TEST(a_count_is_never_too_low_in_its_window_and_ends_at_fifteen) {
  Random random(testing::seed());
  for (int round = 0; round < 20; ++round) {
    const std::size_t window = 1 + random.below(4000);
    FrequencySketch sketch(window);
    std::vector<Key> keys(1 + random.below(window));
    for (Key& key : keys) key = random_key(random);
    std::vector<std::uint32_t> seen(keys.size());
    for (std::size_t sighting = 0; sighting < window; ++sighting) {
      const std::size_t number = random.below(1 + random.below(keys.size()));
      sketch.see(keys[number]);
      ++seen[number];
    }
    for (std::size_t number = 0; number < keys.size(); ++number) {
      const std::uint32_t count = sketch.count(keys[number]);
      CHECK(count >= std::min<std::uint32_t>(seen[number], FrequencySketch::kCountMax / 2));
      CHECK(count <= FrequencySketch::kCountMax / 2);
    }
  }
}

TEST(few_keys_that_were_never_seen_are_taken_for_seen) {
  Random random(testing::seed());
  constexpr std::size_t kWindow = 10'000;
  FrequencySketch sketch(kWindow);
  for (std::size_t sighting = 0; sighting < kWindow; ++sighting) sketch.see(random_key(random));
  std::size_t num_wrong = 0;
  for (std::size_t probe = 0; probe < kWindow; ++probe) num_wrong += sketch.count(random_key(random)) > 0;
  CHECK(num_wrong < kWindow / 20);
}

TEST(a_count_outlives_one_window_and_is_forgotten_with_the_second) {
  Random random(testing::seed());
  constexpr std::size_t kWindow = 64;
  FrequencySketch sketch(kWindow);
  const Key key = random_key(random);
  const Key other = random_key(random);
  for (std::size_t sighting = 0; sighting < kWindow; ++sighting) sketch.see(key);
  CHECK(sketch.count(key) == FrequencySketch::kCountMax / 2);
  for (std::size_t sighting = 0; sighting < kWindow; ++sighting) sketch.see(other);
  CHECK(sketch.count(key) >= FrequencySketch::kCountMax / 2);
  sketch.see(other);
  CHECK(sketch.count(key) <= sketch.count(other));
  CHECK(sketch.count(other) == FrequencySketch::kCountMax / 2 + 1);
}

TEST(leading_keys_are_counted_up_to_the_first_that_was_seen_too_seldom) {
  Random random(testing::seed());
  FrequencySketch sketch(1024);
  std::vector<Key> keys(40);
  for (Key& key : keys) key = random_key(random);
  for (const Key& key : keys) sketch.see(key);
  for (std::size_t block = 0; block < 25; ++block) sketch.see(keys[block]);
  for (std::size_t block = 30; block < keys.size(); ++block) sketch.see(keys[block]);
  CHECK(sketch.count_leading(keys, 1) == keys.size());
  CHECK(sketch.count_leading(keys, 2) >= 25);
  CHECK(sketch.count_leading(keys, 2) < keys.size());
  CHECK(sketch.count_leading(keys, 16) == 0);
  CHECK(sketch.count_leading({}, 1) == 0);
}

TEST(a_window_out_of_range_is_refused) {
  CHECK_THROWS(std::invalid_argument, FrequencySketch(0));
  CHECK_THROWS(std::invalid_argument, FrequencySketch(FrequencySketch::kWindowMax + 1));
}

}  // namespace
}  // namespace tiercel
