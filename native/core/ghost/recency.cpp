#include "ghost/recency.hpp"

#include <algorithm>
#include <bit>

namespace tiercel {

namespace {

constexpr std::size_t kWordBits = 64;

std::uint64_t bit_of(std::size_t position) { return std::uint64_t{1} << (position % kWordBits); }

// In registers: without a processor's own instruction, which not every one has, the library counts by a table.
std::uint64_t num_bits(std::uint64_t bits) noexcept {
  if (bits == 0) return 0;
  bits -= (bits >> 1) & 0x5555555555555555u;
  bits = (bits & 0x3333333333333333u) + ((bits >> 2) & 0x3333333333333333u);
  bits = (bits + (bits >> 4)) & 0x0f0f0f0f0f0f0f0fu;
  return (bits * 0x0101010101010101u) >> 56;
}

// At most three quarters full.
std::size_t num_slots_for(std::size_t num_keys) { return std::bit_ceil(num_keys + num_keys / 3 + 1); }

}  // namespace

Recency::Recency(std::size_t num_keys_max)
    : mask_(num_slots_for(num_keys_max) - 1),
      entries_(mask_ + 1),
      key_at_(2 * num_keys_max),
      words_(key_at_.size() / kWordBits + 1),
      sums_(words_.size() + 1) {}

std::size_t Recency::num_bytes() const noexcept {
  return entries_.size() * sizeof(Entry) + words_.size() * sizeof(Word) +
         (key_at_.size() + sums_.size()) * sizeof(std::uint64_t);
}

// Where the key stands, or the free slot where it would. Keys are spread evenly already, in their low bits too.
std::size_t Recency::slot_of(std::uint64_t key) const noexcept {
  std::size_t slot = key & mask_;
  while (entries_[slot].key != 0 && entries_[slot].key != key) slot = (slot + 1) & mask_;
  return slot;
}

void Recency::set(std::size_t position, bool hot) noexcept {
  Word& word = words_[position / kWordBits];
  (hot ? word.hot : word.samples) |= bit_of(position);
  add(gained_, position, weight(hot));
}

void Recency::unset(std::size_t position, bool hot) noexcept {
  Word& word = words_[position / kWordBits];
  (hot ? word.hot : word.samples) &= ~bit_of(position);
  add(lost_, position, ~weight(hot) + 1);
}

void Recency::add(Change& change, std::size_t position, std::uint64_t amount) noexcept {
  const std::size_t word = position / kWordBits;
  if (word != change.word) {
    for (std::size_t node = change.word + 1; node < sums_.size(); node += node & (~node + 1)) {
      sums_[node] += change.amount;
    }
    change = {word, 0};
  }
  change.amount += amount;
  total_ += amount;
  asked_word_ = kNoWord;
}

std::uint64_t Recency::sum_before(std::size_t word) const noexcept {
  std::uint64_t sum = gained_.word < word ? gained_.amount : 0;
  if (lost_.word < word) sum += lost_.amount;
  for (std::size_t node = word; node != 0; node &= node - 1) sum += sums_[node];
  return sum;
}

// Of the positions up to this one.
std::uint64_t Recency::sum_to(std::size_t position) noexcept {
  const std::size_t last = position / kWordBits;
  if (last != asked_word_) {
    asked_sum_ = sum_before(last);
    asked_word_ = last;
  }
  const std::uint64_t mask = bit_of(position) | (bit_of(position) - 1);
  const Word& word = words_[last];
  return asked_sum_ + num_bits(word.samples & mask) + (num_bits(word.hot & mask) << 32);
}

bool Recency::is_hot(std::uint64_t key) const noexcept {
  const Entry& entry = entries_[slot_of(key)];
  return entry.key != 0 && entry.hot;
}

bool Recency::find(std::uint64_t key, bool& hot, Count& newer) noexcept {
  const Entry& entry = entries_[slot_of(key)];
  if (entry.key == 0) return false;
  hot = entry.hot;
  newer = split(total_ - sum_to(entry.position));
  return true;
}

void Recency::use(std::uint64_t key, bool hot) {
  if (end_ == key_at_.size()) {
    filter([](const Item&, Count) { return Fate::kKeep; });
  }
  Entry& entry = entries_[slot_of(key)];
  if (entry.key != 0) {
    hot = hot || entry.hot;
    key_at_[entry.position] = 0;
    unset(entry.position, entry.hot);
  }
  entry = {key, static_cast<std::uint32_t>(end_), hot};
  key_at_[end_] = key;
  set(end_, hot);
  ++end_;
}

void Recency::filter(const Judge& judge) {
  std::vector<Item> kept;
  std::uint64_t newer = 0;
  for (std::size_t position = end_; position-- > 0;) {
    if (key_at_[position] == 0) continue;
    Item item{key_at_[position], entries_[slot_of(key_at_[position])].hot};
    const Fate fate = judge(item, split(newer));
    if (fate == Fate::kDrop) continue;
    if (fate == Fate::kKeepAsSample) item.hot = false;
    newer += weight(item.hot);
    kept.push_back(item);
  }
  refill(kept);
}

void Recency::clear() { refill({}); }

void Recency::refill(const std::vector<Item>& youngest_first) {
  std::fill(entries_.begin(), entries_.end(), Entry{});
  std::fill(key_at_.begin(), key_at_.end(), 0);
  std::fill(words_.begin(), words_.end(), Word{});
  std::fill(sums_.begin(), sums_.end(), 0);
  gained_ = lost_ = {};
  asked_word_ = kNoWord;
  total_ = 0;
  end_ = 0;
  for (auto item = youngest_first.rbegin(); item != youngest_first.rend(); ++item) {
    entries_[slot_of(item->key)] = {item->key, static_cast<std::uint32_t>(end_), item->hot};
    key_at_[end_] = item->key;
    set(end_, item->hot);
    ++end_;
  }
}

}  // namespace tiercel
