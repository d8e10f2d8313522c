// The order in which a bounded set of keys was used last, and how many of them were used after a given one.
//
// A key stands at the position of its last use; a bit tells each position in use, and a Fenwick tree counts them by
// words of 64, so that counting those behind one costs O(log) in few lines of memory. What is used together stands side
// by side, so the tree is asked once for a word, and told once of what one word gained or lost. Positions only grow and
// are renumbered when they run out. Keys are 64 bits of a block's key, never 0; each is an ordinary sample or hot,
// counted apart. Memory is fixed from the start. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "index/prefetch.hpp"

namespace tiercel {

class Recency {
 public:
  struct Count {
    std::uint32_t num_samples;
    std::uint32_t num_hot;
  };
  struct Item {
    std::uint64_t key;
    bool hot;
  };
  // What becomes of an item, of which `newer` are younger. Asked from the youngest to the oldest.
  enum class Fate : std::uint8_t { kKeep, kKeepAsSample, kDrop };
  using Judge = std::function<Fate(const Item& item, Count newer)>;

  explicit Recency(std::size_t num_keys_max);

  Count count() const noexcept { return split(total_); }
  std::size_t num_bytes() const noexcept;

  // Have where a key stands at hand soon.
  void fetch(std::uint64_t key) const noexcept { prefetch(&entries_[key & mask_]); }

  // Whether the key is there and hot.
  bool is_hot(std::uint64_t key) const noexcept;
  // How many keys were used after this one; nothing if the key is not there. hot: whether it is a hot one.
  bool find(std::uint64_t key, bool& hot, Count& newer) noexcept;

  // Make it the one used last, and hot if it was or shall be. Needs: the key is there, or fewer than num_keys_max are.
  void use(std::uint64_t key, bool hot);

  // O(num_keys_max).
  void filter(const Judge& judge);
  void clear();

 private:
  struct Entry {
    std::uint64_t key;  // 0: free
    std::uint32_t position;
    bool hot;
  };

  // Both counts in one word: what is added is taken away again, so neither half ever borrows from the other.
  static std::uint64_t weight(bool hot) noexcept { return hot ? std::uint64_t{1} << 32 : 1; }
  static Count split(std::uint64_t sum) noexcept {
    return {static_cast<std::uint32_t>(sum), static_cast<std::uint32_t>(sum >> 32)};
  }

  // The positions in use among 64 that follow each other.
  struct Word {
    std::uint64_t samples = 0;
    std::uint64_t hot = 0;
  };

  // What a word gained or lost, and the tree was not told yet.
  struct Change {
    std::size_t word = 0;
    std::uint64_t amount = 0;
  };
  static constexpr std::size_t kNoWord = ~std::size_t{0};

  std::size_t slot_of(std::uint64_t key) const noexcept;
  void set(std::size_t position, bool hot) noexcept;
  void unset(std::size_t position, bool hot) noexcept;
  void add(Change& change, std::size_t position, std::uint64_t amount) noexcept;
  std::uint64_t sum_before(std::size_t word) const noexcept;
  std::uint64_t sum_to(std::size_t position) noexcept;
  void refill(const std::vector<Item>& youngest_first);

  std::size_t mask_;
  std::vector<Entry> entries_;         // open addressing; emptied only as a whole
  std::vector<std::uint64_t> key_at_;  // by position; 0: not in use
  std::vector<Word> words_;            // by position / 64
  std::vector<std::uint64_t> sums_;    // the Fenwick tree over words, from 1
  Change gained_, lost_;
  std::size_t asked_word_ = kNoWord;  // the word that was asked for last, if nothing has changed since
  std::uint64_t asked_sum_ = 0;       // of the words before it
  std::size_t end_ = 0;               // positions before it were given out
  std::uint64_t total_ = 0;
};

}  // namespace tiercel
