#include "node/client_state.hpp"

#include <utility>

#include "node/wire.hpp"

namespace tiercel::node {

bool ClientState::allow_root(const Key& root) {
  if (roots_.size() >= limits_.roots && !roots_.contains(root)) return false;
  roots_.insert(root);
  return true;
}

bool ClientState::open(std::uint32_t number, const Key& root) {
  if (const std::shared_ptr<Sequence> known = find(number)) return known->root() == root;
  if (!roots_.contains(root)) return false;
  while (places_.size() >= limits_.sequences) drop(std::prev(entries_.end()));
  entries_.push_front(
      {number, std::make_shared<Sequence>(root, limits_.tokens_per_block, limits_.origin, Sequence::Source::kKeys)});
  places_.emplace(number, entries_.begin());
  return true;
}

std::shared_ptr<Sequence> ClientState::find(std::uint32_t number) {
  const auto place = places_.find(number);
  if (place == places_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, place->second);
  return place->second->sequence;
}

void ClientState::forget(std::uint32_t number) {
  const auto place = places_.find(number);
  if (place != places_.end()) drop(place->second);
}

void ClientState::drop(Entries::iterator entry) {
  num_keys_ -= entry->sequence->num_blocks();
  places_.erase(entry->number);
  entries_.erase(entry);
}

ClientState::Appended ClientState::append(std::uint32_t number, std::size_t first_block, std::span<const Key> keys) {
  const std::shared_ptr<Sequence> sequence = find(number);
  if (sequence == nullptr) return Appended::kUnknown;
  const std::size_t num_known = sequence->num_blocks();
  if (first_block > num_known) return Appended::kGap;
  if (first_block + keys.size() > kSequenceBlocksMax) return Appended::kTooLong;
  if (first_block + keys.size() <= num_known) return Appended::kDone;
  const std::span<const Key> fresh = keys.subspan(num_known - first_block);
  // The one at hand is the most recently used, and fits alone.
  while (num_keys_ + fresh.size() > limits_.keys && entries_.size() > 1) drop(std::prev(entries_.end()));
  sequence->append_keys(fresh);
  num_keys_ += fresh.size();
  return Appended::kDone;
}

std::optional<OpenLookup> ClientState::take(std::uint64_t lookup) {
  const auto place = lookups_.find(lookup);
  if (place == lookups_.end()) return std::nullopt;
  std::optional<OpenLookup> found(std::move(place->second));
  lookups_.erase(place);
  return found;
}

}  // namespace tiercel::node
