#include "index/restore.hpp"

#include <algorithm>
#include <bit>
#include <unordered_set>

#include "index/index.hpp"

namespace tiercel {

namespace {

// Key -> the usable block of that name, the last one if there are several; knows names of unusable blocks too.
class BlockNames {
 public:
  BlockNames(std::span<const Key> keys, const std::vector<bool>& usable)
      : keys_(keys), usable_(usable), mask_(std::bit_ceil(keys.size() * 2 + 1) - 1), table_(mask_ + 1, kEmpty) {
    for (std::uint32_t block = 0; block < keys.size(); ++block) {
      std::uint32_t& entry = table_[position_of(keys[block])];
      if (entry == kEmpty || usable[block]) entry = block;
    }
  }
  bool contains(const Key& key) const noexcept { return table_[position_of(key)] != kEmpty; }
  std::uint32_t find(const Key& key) const noexcept {
    const std::uint32_t block = table_[position_of(key)];
    return block != kEmpty && usable_[block] ? block : RestoredForest::kNone;
  }

 private:
  static constexpr std::uint32_t kEmpty = ~std::uint32_t{0};

  std::size_t position_of(const Key& key) const noexcept {
    std::uint64_t high;
    std::memcpy(&high, key.bytes.data() + 8, sizeof high);
    const std::uint64_t mixed = (key.hash64() ^ (high * 0x9E3779B97F4A7C15u)) * 0xD6E8FEB86659FD93u;
    std::size_t at = (mixed ^ (mixed >> 32)) & mask_;
    while (table_[at] != kEmpty && !(keys_[table_[at]] == key)) at = (at + 1) & mask_;
    return at;
  }

  std::span<const Key> keys_;
  const std::vector<bool>& usable_;
  std::size_t mask_;
  std::vector<std::uint32_t> table_;
};

}  // namespace

RestoredForest::RestoredForest(std::span<const Key> parents, std::span<const Key> keys, const std::vector<bool>& usable,
                               std::span<const Key> roots)
    : parents_(keys.size(), kNone), first_child_(keys.size(), kNone), next_sibling_(keys.size(), kNone) {
  const BlockNames names(keys, usable);
  const std::unordered_set<Key, KeyHash> known_roots(roots.begin(), roots.end());
  const auto num_blocks = static_cast<std::uint32_t>(keys.size());
  order_.reserve(num_blocks);
  for (std::uint32_t block = 0; block < num_blocks; ++block) {
    if (names.find(keys[block]) != block) continue;  // unusable, or a later one has its name
    const bool is_top = roots.empty() ? !names.contains(parents[block]) : known_roots.contains(parents[block]);
    if (is_top) {
      order_.push_back(block);
      continue;
    }
    const std::uint32_t parent = names.find(parents[block]);
    if (parent == kNone) continue;
    parents_[block] = parent;
    next_sibling_[block] = first_child_[parent];
    first_child_[parent] = block;
  }
  for (std::size_t next = 0; next < order_.size(); ++next) {
    for (std::uint32_t child = first_child_[order_[next]]; child != kNone; child = next_sibling_[child]) {
      order_.push_back(child);
    }
  }
}

std::vector<std::uint32_t> RestoredForest::by_use() const {
  std::vector<std::uint32_t> last_use(parents_.size(), kNone);  // the youngest block of the subtree
  for (std::size_t at = order_.size(); at-- > 0;) {
    const std::uint32_t block = order_[at];
    if (last_use[block] == kNone || last_use[block] < block) last_use[block] = block;
    if (is_top(block)) continue;
    std::uint32_t& above = last_use[parents_[block]];
    if (above == kNone || above < last_use[block]) above = last_use[block];
  }
  std::vector<std::uint32_t> used;
  used.reserve(order_.size());
  for (std::uint32_t block = 0; block < parents_.size(); ++block) {
    for (std::uint32_t at = block; at != kNone && last_use[at] == block; at = parents_[at]) used.push_back(at);
  }
  return used;
}

// Puts the forest into the tree, run by run.
class Restore {
 public:
  Restore(Index& index, std::size_t tier, const RestoredBlocks& blocks) : index_(index), tier_(tier), blocks_(blocks) {}

  std::vector<bool> run(std::span<const Key> roots) {
    std::vector<bool> is_free = index_.tiers_[tier_].slots.free_slots();
    const std::vector<bool> usable = claim_slots(is_free);
    const RestoredForest forest(blocks_.parents, blocks_.keys, usable, roots);
    taken_.assign(blocks_.keys.size(), false);
    ends_.assign(blocks_.keys.size(), {});
    for (const std::uint32_t block : forest.order()) {
      if (forest.starts_run(block)) place_run(forest, block);
    }
    std::vector<Slot> adopted;
    for (std::size_t block = 0; block < taken_.size(); ++block) {
      if (usable[block] && !taken_[block]) is_free[blocks_.slots[block]] = true;
      if (taken_[block]) adopted.push_back(blocks_.slots[block]);
    }
    index_.tiers_[tier_].slots.adopt(adopted, is_free);
    touch_by_use(forest);
    return std::move(taken_);
  }

 private:
  // The place behind a block: a run, and how many of its blocks lead up to there.
  struct Place {
    RunId run = kNoRun;
    std::uint32_t at = 0;
  };

  // Blocks whose slot is free and not claimed by a later block of the same slot or name. Takes them out of is_free.
  std::vector<bool> claim_slots(std::vector<bool>& is_free) const {
    std::vector<bool> usable(blocks_.slots.size(), false);
    for (std::size_t block = usable.size(); block-- > 0;) {
      const Slot slot = blocks_.slots[block];
      if (slot >= is_free.size() || !is_free[slot]) continue;
      is_free[slot] = false;
      usable[block] = true;
    }
    return usable;
  }

  void place_run(const RestoredForest& forest, std::uint32_t first) {
    std::vector<std::uint32_t>& members = members_;
    members.assign(1, first);
    while (forest.goes_on(members.back())) members.push_back(forest.first_child(members.back()));
    Place place = forest.is_top(first) ? Place{} : ends_[forest.parent(first)];
    std::size_t next = 0;
    while (next < members.size() && follow(place, members[next])) ++next;
    if (next < members.size()) {
      place.run = split_at(place);
      add(place, forest.is_top(members[next]) ? blocks_.parents[first] : index_.tree_.root(place.run),
          std::span<const std::uint32_t>(members).subspan(next));
    }
    if (forest.first_child(members.back()) != RestoredForest::kNone) place.run = split_at(place);
    ends_[first].run = place.run;
    ends_[members.back()] = place;
  }

  // Step over a block that the tree knows already, and let the tier hold it. False if the tree goes on otherwise.
  bool follow(Place& place, std::uint32_t block) {
    RunTree& tree = index_.tree_;
    const Key& key = blocks_.keys[block];
    if (place.run == kNoRun || place.at == tree.run(place.run).num_blocks) {
      const RunId child = tree.find_child(place.run, key);
      if (child == kNoRun) return false;
      place = {child, 0};
    } else if (!(tree.run(place.run).keys[place.at] == key)) {
      return false;
    }
    if (tree.tier_run(tier_, place.run).num_present == place.at) {
      tree.fill(tier_, place.run, blocks_.slots.subspan(block, 1), false);
      taken_[block] = true;
    }
    ++place.at;
    return true;
  }

  // The run that ends at the place.
  RunId split_at(const Place& place) {
    if (place.run == kNoRun || place.at == index_.tree_.run(place.run).num_blocks) return place.run;
    return index_.split(place.run, place.at);
  }

  void add(Place& place, const Key& root, std::span<const std::uint32_t> members) {
    std::vector<Key> keys;
    std::vector<Slot> slots;
    for (const std::uint32_t block : members) {
      keys.push_back(blocks_.keys[block]);
      slots.push_back(blocks_.slots[block]);
      taken_[block] = true;
    }
    place.run = index_.tree_.add_child(place.run, root, keys, 0);
    place.at = static_cast<std::uint32_t>(keys.size());
    index_.tree_.fill(tier_, place.run, slots, false);
  }

  void touch_by_use(const RestoredForest& forest) {
    for (const std::uint32_t block : forest.by_use()) {
      if (!forest.starts_run(block)) continue;
      const RunId above = forest.is_top(block) ? kNoRun : ends_[forest.parent(block)].run;
      index_.tree_.use(tier_, ends_[block].run, Use::kRestore, above);
    }
  }

  Index& index_;
  std::size_t tier_;
  const RestoredBlocks& blocks_;
  std::vector<bool> taken_;
  std::vector<Place> ends_;  // behind the last block of each run; the first block of a run has the same run
  std::vector<std::uint32_t> members_;
};

std::vector<bool> Index::restore_blocks(Lock&, std::size_t tier, const RestoredBlocks& blocks,
                                        std::span<const Key> roots) {
  return Restore(*this, tier, blocks).run(roots);
}

ExportedBlocks Index::export_blocks(Lock&, std::size_t tier) const {
  enum class Visit : std::uint8_t { kNo, kWhole, kCut };
  ExportedBlocks blocks;
  const std::uint32_t num_ready = tiers_[tier].slots.num_ready();
  blocks.parents.reserve(num_ready);
  blocks.keys.reserve(num_ready);
  blocks.slots.reserve(num_ready);
  std::vector<Visit> visits(tree_.run_end(), Visit::kNo);
  std::vector<RunId> path;
  for (const RunId next : tree_.order(tier)) {
    path.clear();
    for (RunId id = next; id != kNoRun && visits[id] == Visit::kNo; id = tree_.run(id).parent) path.push_back(id);
    for (; !path.empty(); path.pop_back()) {
      const RunId id = path.back();
      const Run& run = tree_.run(id);
      const TierRun& held = tree_.tier_run(tier, id);
      // Behind a block that is being written, a restored one would have no parent.
      visits[id] = run.parent != kNoRun && visits[run.parent] == Visit::kCut ? Visit::kCut : Visit::kWhole;
      for (std::uint32_t at = 0; at < held.num_present && visits[id] == Visit::kWhole; ++at) {
        if (is_writing(held.slots[at])) {
          visits[id] = Visit::kCut;
          break;
        }
        const Key& top = run.parent == kNoRun ? tree_.root(id) : tree_.last_key(run.parent);
        blocks.parents.push_back(at == 0 ? top : run.keys[at - 1]);
        blocks.keys.push_back(run.keys[at]);
        blocks.slots.push_back(held.slots[at]);
      }
    }
  }
  return blocks;
}

}  // namespace tiercel
