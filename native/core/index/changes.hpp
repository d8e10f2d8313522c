// What became readable and what left, block by block, for whoever follows the index from outside.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "key.hpp"

namespace tiercel {

enum class Change : std::uint8_t { kReady = 0, kGone = 1, kAllGone = 2 };

// One entry a change, in order. After kAllGone (of no tier and no key) nothing from before is there.
struct Changes {
  std::vector<Change> kinds;
  std::vector<std::uint8_t> tiers;
  std::vector<Key> keys;
  bool is_incomplete = false;  // more changes than there was room for: none of them is named
};

// Costs one comparison a block while nobody watches.
class ChangeLog {
 public:
  // Keep up to num_changes from now on; 0: none.
  void watch(std::size_t num_changes) {
    room_ = num_changes;
    changes_ = {};
  }
  void add(Change kind, std::size_t tier, const Key& key) {
    if (room_ == 0 || changes_.is_incomplete) return;
    if (changes_.kinds.size() == room_) {
      changes_ = {};
      changes_.is_incomplete = true;
      return;
    }
    changes_.kinds.push_back(kind);
    changes_.tiers.push_back(static_cast<std::uint8_t>(tier));
    changes_.keys.push_back(key);
  }
  Changes take() { return std::exchange(changes_, {}); }

 private:
  std::size_t room_ = 0;
  Changes changes_;
};

}  // namespace tiercel
