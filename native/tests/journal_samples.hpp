// Journals for tests: random records of blocks that a plain map follows.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "disk/journal.hpp"
#include "random.hpp"

namespace tiercel::testing {

inline disk::KeyBytes random_key(Random& random) {
  disk::KeyBytes key{};
  for (std::byte& byte : key) byte = static_cast<std::byte>(random.next());
  return key;
}

// What a journal must say: slot -> the last mapping recorded for it.
using Mappings = std::map<std::uint32_t, disk::Mapping>;

// Appends one random record, or writes a checkpoint of what `model` holds.
inline void record_something(disk::Journal& journal, Mappings& model, Random& random, std::uint32_t num_slots) {
  const std::uint64_t act = random.below(10);
  std::vector<std::uint32_t> slots(1 + random.below(6));
  for (std::uint32_t& slot : slots) slot = static_cast<std::uint32_t>(random.below(num_slots));
  if (act < 6) {
    const disk::KeyBytes parent = random_key(random);
    std::vector<disk::KeyBytes> keys;
    std::vector<std::uint64_t> checksums;
    for (std::size_t i = 0; i < slots.size(); ++i) {
      keys.push_back(random_key(random));
      checksums.push_back(random.next());
    }
    journal.put(parent, keys, slots, checksums);
    for (std::size_t i = 0; i < slots.size(); ++i) {
      model[slots[i]] = {i == 0 ? parent : keys[i - 1], keys[i], slots[i], checksums[i]};
    }
  } else if (act < 9) {
    journal.free(slots);
    for (const std::uint32_t slot : slots) model.erase(slot);
  } else {
    journal.begin_checkpoint();
    std::vector<disk::Mapping> mappings;
    for (const auto& [slot, mapping] : model) mappings.push_back(mapping);
    journal.write_checkpoint(mappings);
  }
}

inline bool is_same(const disk::Mapping& left, const disk::Mapping& right) {
  return left.parent == right.parent && left.key == right.key && left.slot == right.slot &&
         left.checksum == right.checksum;
}

}  // namespace tiercel::testing
