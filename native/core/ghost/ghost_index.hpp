// The hit rate that an LRU cache of any capacity would have had, from a sample of the blocks and without their bytes.
//
// SHARDS (Waldspurger et al., FAST'15) over prefix trees. A block is sampled if 64 bits of its key lie below a
// threshold, so all its uses are seen or none. Distances of a lookup's blocks are taken before any of them is touched,
// and then they are touched from leaf to root, so that a parent is always younger than its children: LRU evicts leaves
// first by itself, and one pass serves every capacity. Blocks that take a large share of all uses would make a sample's
// error large by being in it or not: they are found by a sketch of all uses and tracked exactly.
//
// A lookup's cost is kept small by `resolution_blocks`. Uses of a block are more than those of the blocks behind it, so
// hot blocks come first on a path: where they end is found by bisection. Those used less than that distance ago are
// counted without being touched again, and uses enter the sketch in one lookup of 32 only. A distance is then told up
// to twice the resolution wrong, if it is no more than that itself.
//
// With `window_blocks` the figures fade: whenever twice as many blocks were counted, everything counted is halved, so
// that they tell of the last one to two windows. Which block was used when is not forgotten with them.
//
// Memory is fixed. When there are too many samples, those older than `span_blocks` go, and if that does not help the
// threshold is lowered (fixed-size SHARDS). A use that was seen at a sampling rate weighs its inverse.
//
// Thread-safe.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "ghost/distance_histogram.hpp"
#include "ghost/recency.hpp"
#include "ghost/use_sketch.hpp"
#include "hashing/sequence.hpp"

namespace tiercel {

struct GhostOptions {
  double sample_rate = 0.01;  // share of blocks, (0, 1]; the rate to start with
  std::uint32_t num_samples_max = 32768;
  double hot_share = 0.0005;                 // blocks with more than this share of all uses are tracked exactly; (0, 1]
  std::optional<std::uint64_t> span_blocks;  // no capacity above this is asked for
  std::optional<std::uint64_t> window_blocks = std::nullopt;  // none: figures tell of everything since the start
  std::uint64_t resolution_blocks = 0;  // smallest distance to be told right; 0: all, with every use counted
};

struct GhostStats {
  std::uint64_t num_blocks;  // observed
  double sample_rate;
  std::uint32_t num_samples;
  std::uint32_t num_hot;
  std::size_t memory_bytes;
};

struct HitRate {
  double rate;  // hits per block looked up
  double
      error;  // one standard error: how much eight parts of the sample differ, how few it holds, how many uses it lacks
};

class GhostIndex {
 public:
  // std::invalid_argument names the option that is out of range.
  explicit GhostIndex(const GhostOptions& options);

  // A lookup of the sequence's first blocks, which hashes them. std::invalid_argument if there are fewer.
  void observe(Sequence& sequence, std::size_t num_blocks);
  // The same without hashing: of the blocks that are not hashed yet the sequence notes that they are to be counted.
  // Asked for again before that, each is counted once.
  void observe_hashed(Sequence& sequence, std::size_t num_blocks);
  // A store of them, which hashes them: they become the ones used last. Counts those that a lookup left uncounted, and
  // no others. A path's own blocks are always younger than those behind them, so that this is late changes a distance
  // only by what other sequences used in between.
  void insert(Sequence& sequence, std::size_t num_blocks);

  // std::invalid_argument for a capacity above span_blocks.
  std::vector<HitRate> curve(std::span<const std::uint64_t> capacities) const;
  GhostStats stats() const;
  void clear();

 private:
  static constexpr std::size_t kNumParts = 8;
  struct Part {
    DistanceHistogram hits;
    double weight = 0;  // of all uses seen
  };
  struct Use {
    std::uint64_t key;
    bool hot;
  };

  bool is_sampled(std::uint64_t key) const noexcept { return key <= threshold_; }
  double rate() const noexcept;
  double error_of_few(double share) const noexcept;
  void set_threshold(std::uint64_t threshold) noexcept;
  bool is_turn_to_sketch() noexcept;
  void sketch_uses(Sequence& sequence, std::size_t start, std::size_t hot_end, std::size_t stop);
  void collect_uses(Sequence& sequence, std::size_t start, std::size_t stop);
  void collect_every_use(Sequence& sequence, std::size_t start, std::size_t stop);
  void collect_sampled_uses(Sequence& sequence, std::size_t start, std::size_t stop);
  std::size_t collect_hot_uses(Sequence& sequence, std::size_t start, std::size_t stop);
  std::size_t count_fresh_uses(Sequence& sequence, std::size_t start, std::size_t end);
  std::size_t find_hot_end(Sequence& sequence, std::size_t start, std::size_t stop) const;
  std::uint64_t distance(Recency::Count newer) const noexcept;
  void fade();
  void collect_inserted(Sequence& sequence, std::size_t start, std::size_t stop);
  void count(std::uint64_t key, bool sampled, bool promoted);
  void touch_collected();
  void make_room();
  void review();

  const GhostOptions options_;
  const std::size_t num_hot_max_;
  mutable std::mutex mutex_;
  Recency recency_;
  std::unique_ptr<UseSketch> sketch_;
  std::unique_ptr<std::array<Part, kNumParts>> parts_;
  std::unique_ptr<DistanceHistogram> hot_hits_;
  std::uint64_t threshold_;
  double sample_weight_;                // blocks that a sample stands for
  std::uint64_t num_blocks_ = 0;        // ever
  double uses_ = 0;                     // of all blocks in the window
  double hot_uses_ = 0;                 // of hot ones
  std::uint64_t turn_ = 0;              // decides which lookups enter the sketch
  std::uint64_t num_recent_ = 0;        // uses in the sketch
  std::uint64_t next_review_ = 0;       // when there are so many
  std::uint32_t hot_from_ = 0;          // uses in the sketch that make a block hot; half of them keep it so
  std::vector<Use> used_;               // of the lookup at hand, root first
  std::vector<std::uint64_t> sampled_;  // of the lookup at hand
};

}  // namespace tiercel
