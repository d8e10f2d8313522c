// What the index keeps for a run: a compressed edge of the tree, that is consecutive blocks of one path. All blocks of
// a run share one history in every tier: they came and were used together. So a policy decides by run, as exactly as if
// it decided by block.
#pragma once

#include <cstdint>

#include "index/tenants.hpp"
#include "index/types.hpp"
#include "key.hpp"

namespace tiercel {

// A cache line, so that evicting one of many short runs waits for memory once.
struct alignas(64) Run {
  Key* keys;          // of a capacity of 1: &first_key
  Key first_key;      // equal to keys[0]
  RunId parent;       // kNoRun at the top
  RunId first_child;  // children form a list, for the rare case that a subtree is dropped
  RunId next_sibling;
  RunId previous_sibling;
  std::uint32_t num_blocks;  // 0: this number is not in use
  std::uint32_t capacity;    // of keys and of each tier's slots
  std::uint32_t depth;       // blocks before this run on its path
  std::uint32_t root;        // in the root table; the same on a whole path
  RunLink next_in_bucket;    // the table's
  std::uint8_t priority;     // no lower than any child's
  Tenant tenant;             // whose the root is
};
static_assert(sizeof(Run) == 64);

struct alignas(32) TierRun {   // half a cache line
  Slot* slots;                 // null while num_present == 0; of a run of capacity 1: &only_slot
  std::uint32_t num_present;   // leading blocks that the tier holds
  std::uint32_t num_writing;   // of those, not ready yet
  std::uint32_t num_children;  // child runs of which the tier holds any block
  Slot only_slot;
  float last_used;            // a stamp of EvictionAges
  std::uint32_t policy_word;  // the policy's own
};

}  // namespace tiercel
