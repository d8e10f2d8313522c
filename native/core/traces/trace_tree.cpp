#include "traces/trace_tree.hpp"

#include <algorithm>
#include <limits>
#include <stdexcept>

namespace tiercel {
namespace {

constexpr std::size_t kTableMin = 1024;
constexpr std::size_t kBlocksMax = std::numeric_limits<std::int32_t>::max();

std::uint64_t mixed(std::int32_t parent, std::uint64_t name) noexcept {
  std::uint64_t bits = name + 0x9E3779B97F4A7C15U * (static_cast<std::uint32_t>(parent) + std::uint64_t{1});
  bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9U;
  bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EBU;
  return bits ^ (bits >> 31);
}

std::size_t at(std::int32_t number) noexcept { return static_cast<std::size_t>(number); }

void check_leaf(std::int32_t leaf, std::size_t num_blocks) {
  if (leaf < kNoBlock || (leaf != kNoBlock && at(leaf) >= num_blocks)) {
    throw std::invalid_argument("a request's deepest block is none of the trace's");
  }
}

}  // namespace

TraceTree::TraceTree() : table_(kTableMin, kNoBlock) {}

std::int32_t TraceTree::add(std::span<const std::uint64_t> names, std::int32_t scope) {
  if (scope < 0) throw std::invalid_argument("a scope's number must be 0 or more");
  if (names.empty()) return kNoBlock;
  std::int32_t block = kNoBlock - scope;
  for (const std::uint64_t name : names) {
    // A path that was added before lies in one piece up to where it branches.
    const std::size_t next = block < 0 ? parents_.size() : at(block) + 1;
    const bool is_next = next < parents_.size() && parents_[next] == block && names_[next] == name;
    block = is_next ? static_cast<std::int32_t>(next) : child(block, name);
  }
  return block;
}

std::size_t TraceTree::memory_bytes() const noexcept {
  return parents_.capacity() * sizeof(std::int32_t) + names_.capacity() * sizeof(std::uint64_t) +
         table_.capacity() * sizeof(std::int32_t);
}

std::vector<std::int32_t> TraceTree::parents() const {
  std::vector<std::int32_t> parents(parents_);
  for (std::int32_t& parent : parents) parent = std::max(parent, kNoBlock);
  return parents;
}

std::int32_t TraceTree::child(std::int32_t parent, std::uint64_t name) {
  const std::size_t found = place(parent, name);
  if (table_[found] != kNoBlock) return table_[found];
  if (parents_.size() == kBlocksMax) throw std::length_error("a trace has at most 2^31 - 1 different blocks");
  const auto block = static_cast<std::int32_t>(parents_.size());
  parents_.push_back(parent);
  names_.push_back(name);
  table_[found] = block;
  if (parents_.size() * 4 > table_.size() * 3) grow();
  return block;
}

std::size_t TraceTree::place(std::int32_t parent, std::uint64_t name) const noexcept {
  const std::size_t mask = table_.size() - 1;
  std::size_t slot = mixed(parent, name) & mask;
  while (table_[slot] != kNoBlock && (parents_[at(table_[slot])] != parent || names_[at(table_[slot])] != name)) {
    slot = (slot + 1) & mask;
  }
  return slot;
}

void TraceTree::grow() {
  table_.assign(table_.size() * 2, kNoBlock);
  for (std::size_t block = 0; block < parents_.size(); ++block) {
    table_[place(parents_[block], names_[block])] = static_cast<std::int32_t>(block);
  }
}

std::vector<std::int32_t> trace_depths(std::span<const std::int32_t> parents) {
  std::vector<std::int32_t> depths(parents.size());
  for (std::size_t block = 0; block < parents.size(); ++block) {
    const std::int32_t parent = parents[block];
    if (parent < kNoBlock || (parent != kNoBlock && at(parent) >= block)) {
      throw std::invalid_argument("a block's parent must come before it");
    }
    depths[block] = parent == kNoBlock ? 0 : depths[at(parent)] + 1;
  }
  return depths;
}

std::vector<std::int32_t> trace_first_uses(std::span<const std::int32_t> parents,
                                           std::span<const std::int32_t> leaves) {
  std::vector<std::int32_t> first(parents.size(), static_cast<std::int32_t>(leaves.size()));
  for (std::size_t request = leaves.size(); request-- > 0;) {
    check_leaf(leaves[request], parents.size());
    if (leaves[request] != kNoBlock) first[at(leaves[request])] = static_cast<std::int32_t>(request);
  }
  for (std::size_t block = parents.size(); block-- > 0;) {
    const std::int32_t parent = parents[block];
    if (parent < kNoBlock || (parent != kNoBlock && at(parent) >= block)) {
      throw std::invalid_argument("a block's parent must come before it");
    }
    if (parent != kNoBlock) first[at(parent)] = std::min(first[at(parent)], first[block]);
  }
  return first;
}

std::vector<std::int32_t> trace_paths(std::span<const std::int32_t> parents, std::span<const std::int32_t> depths,
                                      std::span<const std::int32_t> leaves) {
  if (depths.size() != parents.size()) throw std::invalid_argument("depths must hold one number a block");
  std::size_t total = 0;
  for (const std::int32_t leaf : leaves) {
    check_leaf(leaf, parents.size());
    if (leaf != kNoBlock) total += at(depths[at(leaf)]) + 1;
  }
  std::vector<std::int32_t> paths(total);
  std::size_t end = 0;
  for (const std::int32_t leaf : leaves) {
    if (leaf == kNoBlock) continue;
    const std::size_t start = end;
    end += at(depths[at(leaf)]) + 1;
    std::size_t into = end;
    for (std::int32_t block = leaf; block != kNoBlock && into > start; block = parents[at(block)]) {
      paths[--into] = block;
    }
  }
  return paths;
}

}  // namespace tiercel
