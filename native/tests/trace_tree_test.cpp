// The tree of a trace's blocks against a map of whole paths, and what is asked of the finished tree.
#include "traces/trace_tree.hpp"

#include <algorithm>
#include <cstdint>
#include <map>
#include <stdexcept>
#include <utility>
#include <vector>

#include "check.hpp"
#include "random.hpp"

namespace tiercel {
namespace {

using testing::Random;

using Path = std::vector<std::uint64_t>;

Path random_path(Random& random) {
  Path path(random.below(12));
  for (std::uint64_t& name : path) name = random.below(3);
  return path;
}

TEST(a_path_has_the_same_block_as_another_exactly_where_all_before_it_is_the_same) {
  Random random(testing::seed());
  TraceTree tree;
  std::map<std::pair<std::int32_t, Path>, std::int32_t> known;
  std::vector<std::int32_t> leaves;
  for (int round = 0; round < 5000; ++round) {
    const Path path = random_path(random);
    const auto scope = static_cast<std::int32_t>(random.below(2));
    const std::int32_t leaf = tree.add(path, scope);
    leaves.push_back(leaf);
    CHECK((leaf == kNoBlock) == path.empty());
    if (path.empty()) continue;
    const auto [found, is_new] = known.try_emplace({scope, path}, leaf);
    CHECK(found->second == leaf);
  }
  const std::vector<std::int32_t> parents = tree.parents();
  CHECK(parents.size() == tree.num_blocks());
  const std::vector<std::int32_t> depths = trace_depths(parents);
  for (const auto& [path, leaf] : known) CHECK(depths[static_cast<std::size_t>(leaf)] + 1 == std::ssize(path.second));

  const std::vector<std::int32_t> first = trace_first_uses(parents, leaves);
  std::vector<std::int32_t> expected(parents.size(), static_cast<std::int32_t>(leaves.size()));
  for (std::size_t request = leaves.size(); request-- > 0;) {
    for (const std::int32_t block : trace_paths(parents, depths, {&leaves[request], 1})) {
      expected[static_cast<std::size_t>(block)] = static_cast<std::int32_t>(request);
    }
  }
  CHECK(first == expected);
}

TEST(a_long_path_and_its_branches_cost_memory_by_block) {
  TraceTree tree;
  Path path(200'000);
  for (std::size_t at = 0; at < path.size(); ++at) path[at] = at;
  const std::int32_t leaf = tree.add(path, 0);
  CHECK(tree.add(path, 0) == leaf);
  path.back() = 7;
  CHECK(tree.add(path, 0) == static_cast<std::int32_t>(path.size()));
  CHECK(tree.num_blocks() == path.size() + 1);
  CHECK(tree.memory_bytes() <= 40 * tree.num_blocks());
}

}  // namespace
}  // namespace tiercel
