// What a node keeps of one client on the hot path: the roots it may hash under, its sequences (keys only) and its open
// lookups (pins). All of it bounded. Not thread-safe; a Match's end takes the index's lock.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <span>
#include <unordered_map>
#include <unordered_set>

#include "hashing/sequence.hpp"
#include "index/match.hpp"
#include "key.hpp"

namespace tiercel::node {

struct ClientLimits {
  std::size_t lookups = 4096;               // open at once
  std::size_t sequences = 4096;             // least recently used dropped
  std::size_t keys = std::size_t{4} << 20;  // of all its sequences; least recently used sequences dropped
  std::size_t roots = 4096;
  std::size_t tokens_per_block = 16;  // of its sequences
  std::uint64_t origin = 0;           // what its sequences are known by
};

// A lookup that is neither released nor launched: its pins, and what they are of.
struct OpenLookup {
  Match match;
  std::shared_ptr<Sequence> sequence;
};

class ClientState {
 public:
  explicit ClientState(const ClientLimits& limits) : limits_(limits) {}

  // False if it has too many.
  bool allow_root(const Key& root);

  // Make a sequence, or find it as it is. False, and nothing done, if the root was not allowed, or is not the
  // sequence's.
  bool open(std::uint32_t number, const Key& root);
  std::shared_ptr<Sequence> find(std::uint32_t number);  // null: unknown, or dropped
  void forget(std::uint32_t number);

  enum class Appended : std::uint8_t { kDone, kUnknown, kGap, kTooLong };
  // keys: of the blocks from first_block on; those known already are skipped. Nothing changes unless kDone.
  Appended append(std::uint32_t number, std::size_t first_block, std::span<const Key> keys);

  bool may_look_up() const noexcept { return lookups_.size() < limits_.lookups; }
  void hold(std::uint64_t lookup, OpenLookup&& found) { lookups_.emplace(lookup, std::move(found)); }
  std::optional<OpenLookup> take(std::uint64_t lookup);  // none: unknown
  void release(std::uint64_t lookup) { lookups_.erase(lookup); }

  std::size_t num_lookups() const noexcept { return lookups_.size(); }
  std::size_t num_sequences() const noexcept { return places_.size(); }
  std::size_t num_keys() const noexcept { return num_keys_; }

 private:
  struct Entry {
    std::uint32_t number;
    std::shared_ptr<Sequence> sequence;
  };
  using Entries = std::list<Entry>;  // most recently used first

  void drop(Entries::iterator entry);

  const ClientLimits limits_;
  std::unordered_set<Key, KeyHash> roots_;
  Entries entries_;
  std::unordered_map<std::uint32_t, Entries::iterator> places_;
  std::unordered_map<std::uint64_t, OpenLookup> lookups_;
  std::size_t num_keys_ = 0;
};

}  // namespace tiercel::node
