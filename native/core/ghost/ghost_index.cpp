#include "ghost/ghost_index.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

#include "ghost/key_scan.hpp"

namespace tiercel {

namespace {

constexpr std::uint64_t kReviewFirst = 4096;
constexpr std::uint64_t kRecentMax = std::uint64_t{1} << 22;
constexpr int kTurnBits = 5;  // one lookup of 2^5 enters the sketch, where not each does
constexpr std::uint32_t kHotFromMin = 16;
constexpr std::uint64_t kNotFresh = 0;                                       // no distance: those are 1 at least
constexpr std::uint32_t kNever = std::numeric_limits<std::uint32_t>::max();  // more uses than a sketch counts

void check_options(const GhostOptions& options) {
  const auto is_share = [](double share) { return share > 0 && share <= 1; };
  if (!is_share(options.sample_rate)) throw std::invalid_argument("sample_rate: more than 0 and at most 1");
  if (!is_share(options.hot_share)) throw std::invalid_argument("hot_share: more than 0 and at most 1");
  if (options.num_samples_max < 64 || options.num_samples_max > (1u << 26)) {
    throw std::invalid_argument("num_samples_max: 64 to 2^26");
  }
  if (options.span_blocks == 0) throw std::invalid_argument("span_blocks: at least 1");
  if (options.window_blocks == 0) throw std::invalid_argument("window_blocks: at least 1");
}

// A block stays hot down to half the share, so there can be twice as many.
std::size_t num_hot_max_of(const GhostOptions& options) {
  return std::min<std::size_t>(static_cast<std::size_t>(2 / options.hot_share), options.num_samples_max);
}

const GhostOptions& checked(const GhostOptions& options) {
  check_options(options);
  return options;
}

std::uint64_t threshold_of(double rate) {
  // Not 2^64 itself: what rounds up to it would overflow.
  return rate >= 1 ? std::numeric_limits<std::uint64_t>::max() : static_cast<std::uint64_t>(std::ldexp(rate, 64));
}

// By keys' low bits, which are the samples' own.
std::size_t part_of(std::uint64_t key, std::size_t num_parts) { return (key >> 8) % num_parts; }

std::uint64_t bits_of(const Key& key) { return std::max<std::uint64_t>(key.hash64(), 1); }

std::uint64_t bits_of(Sequence& sequence, std::size_t block) {
  return bits_of(sequence.stable_keys(block, block + 1).front());
}

}  // namespace

GhostIndex::GhostIndex(const GhostOptions& options)
    : options_(checked(options)),
      num_hot_max_(num_hot_max_of(options)),
      recency_(options.num_samples_max + num_hot_max_),
      sketch_(std::make_unique<UseSketch>()),
      parts_(std::make_unique<std::array<Part, kNumParts>>()),
      hot_hits_(std::make_unique<DistanceHistogram>()) {
  clear();
}

void GhostIndex::clear() {
  const std::lock_guard lock(mutex_);
  recency_.clear();
  sketch_->clear();
  parts_->fill({});
  hot_hits_->clear();
  set_threshold(threshold_of(options_.sample_rate));
  num_blocks_ = num_recent_ = turn_ = 0;
  uses_ = hot_uses_ = 0;
  next_review_ = kReviewFirst;
  hot_from_ = kHotFromMin;
}

double GhostIndex::rate() const noexcept { return 1 / sample_weight_; }

void GhostIndex::set_threshold(std::uint64_t threshold) noexcept {
  threshold_ = threshold;
  sample_weight_ = 1 / std::ldexp(static_cast<double>(threshold), -64);
}

void GhostIndex::observe(Sequence& sequence, std::size_t num_blocks) {
  sequence.hash_to(num_blocks);
  observe_hashed(sequence, num_blocks);
}

void GhostIndex::observe_hashed(Sequence& sequence, std::size_t num_blocks) {
  const std::size_t stop = std::min(sequence.num_hashed_blocks(), num_blocks);
  const std::lock_guard lock(mutex_);
  const Sequence::BlockRange left = sequence.uncounted();
  Sequence::BlockRange now{static_cast<std::uint32_t>(std::max<std::size_t>(stop, left.start)),
                           static_cast<std::uint32_t>(std::max<std::size_t>(num_blocks, left.stop))};
  if (now.start >= now.stop) now = {};
  if (now != left) sequence.exchange_uncounted(now);
  used_.clear();
  collect_uses(sequence, 0, stop);
  touch_collected();
  if (num_recent_ >= next_review_) review();
}

void GhostIndex::insert(Sequence& sequence, std::size_t num_blocks) {
  sequence.hash_to(num_blocks);
  const std::lock_guard lock(mutex_);
  const Sequence::BlockRange left = sequence.exchange_uncounted({});
  const std::size_t start = std::min<std::size_t>(left.start, num_blocks);
  const std::size_t stop = std::min<std::size_t>(left.stop, num_blocks);
  if (stop < left.stop)
    sequence.exchange_uncounted({std::max(left.start, static_cast<std::uint32_t>(stop)), left.stop});
  used_.clear();
  collect_inserted(sequence, 0, start);
  collect_uses(sequence, start, stop);
  collect_inserted(sequence, stop, num_blocks);
  touch_collected();
  if (num_recent_ >= next_review_) review();
}

void GhostIndex::collect_inserted(Sequence& sequence, std::size_t start, std::size_t stop) {
  // Hot blocks were touched when they were looked up, if not for less than the resolution.
  const std::uint32_t hot_while = options_.resolution_blocks == 0 ? hot_from_ / 2 : kNever;
  for (std::size_t block = start; block < stop;) {
    const std::span<const Key> keys = sequence.stable_keys(block, stop);
    for (const Key& key : keys) {
      const std::uint64_t bits = bits_of(key);
      const bool sampled = is_sampled(bits);
      const bool hot = (sampled || sketch_->count(bits) >= hot_while) && recency_.is_hot(bits);
      if (sampled || hot) used_.push_back({bits, hot});
    }
    block += keys.size();
  }
}

// Count the uses of consecutive blocks and note those to touch.
void GhostIndex::collect_uses(Sequence& sequence, std::size_t start, std::size_t stop) {
  if (options_.resolution_blocks == 0) {
    collect_every_use(sequence, start, stop);
  } else {
    const std::size_t hot_end = collect_hot_uses(sequence, start, stop);
    collect_sampled_uses(sequence, hot_end, stop);
    if (is_turn_to_sketch()) sketch_uses(sequence, start, hot_end, stop);
  }
  num_blocks_ += stop - start;
  uses_ += static_cast<double>(stop - start);
  fade();
}

bool GhostIndex::is_turn_to_sketch() noexcept {
  turn_ = turn_ * 6364136223846793005u + 1442695040888963407u;  // no period that traffic could have too
  return turn_ >> (64 - kTurnBits) == 0;
}

void GhostIndex::sketch_uses(Sequence& sequence, std::size_t start, std::size_t hot_end, std::size_t stop) {
  for (std::size_t block = start; block < stop;) {
    for (const Key& key : sequence.stable_keys(block, stop)) {
      const std::uint64_t bits = bits_of(key);
      const bool becomes_hot = sketch_->add(bits) >= hot_from_ && block >= hot_end;
      if (becomes_hot && recency_.count().num_hot < num_hot_max_) used_.push_back({bits, true});
      ++block;
    }
  }
  num_recent_ += stop - start;
}

// Most blocks are neither hot nor sampled: for them this is one counter and two comparisons.
void GhostIndex::collect_every_use(Sequence& sequence, std::size_t start, std::size_t stop) {
  const std::uint32_t hot_while = hot_from_ / 2;
  for (std::size_t block = start; block < stop;) {
    const std::span<const Key> keys = sequence.stable_keys(block, stop);
    for (const Key& key : keys) {
      const std::uint64_t bits = bits_of(key);
      const std::uint32_t num_uses = sketch_->add(bits);
      const bool sampled = is_sampled(bits);
      if (sampled || num_uses >= hot_while) count(bits, sampled, num_uses >= hot_from_);
    }
    block += keys.size();
  }
  num_recent_ += stop - start;
}

// Samples lie anywhere in the table, so all of a lookup are fetched at once before the first is waited for.
void GhostIndex::collect_sampled_uses(Sequence& sequence, std::size_t start, std::size_t stop) {
  sampled_.clear();
  const auto note = [this](const Key& key) {
    const std::uint64_t bits = bits_of(key);
    if (!is_sampled(bits)) return;
    recency_.fetch(bits);
    sampled_.push_back(bits);
  };
  for (std::size_t block = start; block < stop;) {
    const std::span<const Key> keys = sequence.stable_keys(block, stop);
    block += keys.size();
    std::size_t at = 0;
    for (; at + kKeysAtOnce <= keys.size(); at += kKeysAtOnce) {
      std::uint32_t found = find_low(&keys[at], threshold_);
      for (; found != 0; found &= found - 1) note(keys[at + static_cast<std::size_t>(std::countr_zero(found))]);
    }
    for (; at < keys.size(); ++at) note(keys[at]);
  }
  for (const std::uint64_t bits : sampled_) count(bits, true, false);
}

// Count the hot blocks that the path begins with, and note those to touch that were not touched of late. Returns where
// they end.
std::size_t GhostIndex::collect_hot_uses(Sequence& sequence, std::size_t start, std::size_t stop) {
  const std::size_t end = find_hot_end(sequence, start, stop);
  for (std::size_t block = count_fresh_uses(sequence, start, end); block < end;) {
    const std::span<const Key> keys = sequence.stable_keys(block, end);
    for (const Key& key : keys) recency_.fetch(bits_of(key));
    for (const Key& key : keys) count(bits_of(key), is_sampled(bits_of(key)), false);
    block += keys.size();
  }
  return end;
}

// Count the leading hot blocks that were touched of late, without touching them: where they end is found by bisection,
// as a block is always younger than those behind it, and what lies before one that was touched of late was used as
// lately.
std::size_t GhostIndex::count_fresh_uses(Sequence& sequence, std::size_t start, std::size_t end) {
  if (start == end) return end;
  const auto fresh_distance = [&](std::size_t block) {
    bool hot = false;
    Recency::Count newer;
    if (!recency_.find(bits_of(sequence, block), hot, newer) || !hot) return kNotFresh;
    return distance(newer) <= options_.resolution_blocks ? distance(newer) : kNotFresh;
  };
  std::size_t fresh_end = end;
  std::uint64_t last_distance = fresh_distance(end - 1);
  if (last_distance == kNotFresh) {
    fresh_end = start;
    for (std::size_t stale = end - 1; fresh_end < stale;) {
      const std::size_t middle = fresh_end + (stale - fresh_end) / 2;
      const std::uint64_t found = fresh_distance(middle);
      if (found == kNotFresh) {
        stale = middle;
      } else {
        last_distance = found;
        fresh_end = middle + 1;
      }
    }
  }
  if (fresh_end > start) {
    hot_hits_->add(last_distance, static_cast<double>(fresh_end - start));
    hot_uses_ += static_cast<double>(fresh_end - start);
  }
  return fresh_end;
}

std::size_t GhostIndex::find_hot_end(Sequence& sequence, std::size_t start, std::size_t stop) const {
  if (start == stop) return start;
  const std::span<const Key> keys = sequence.stable_keys(start, stop);
  const auto hot_at = [&](std::size_t block) {
    const std::size_t at = block - start;
    const std::uint64_t bits = at < keys.size() ? bits_of(keys[at]) : bits_of(sequence, block);
    return sketch_->count(bits) >= hot_from_ / 2 && recency_.is_hot(bits);
  };
  if (!hot_at(start)) return start;
  if (hot_at(stop - 1)) return stop;
  std::size_t last_hot = start;
  for (std::size_t step = 1; step < stop - 1 - last_hot && hot_at(last_hot + step); step *= 2) last_hot += step;
  std::size_t cold = stop - 1;
  while (cold - last_hot > 1) {
    const std::size_t middle = last_hot + (cold - last_hot) / 2;
    (hot_at(middle) ? last_hot : cold) = middle;
  }
  return cold;
}

std::uint64_t GhostIndex::distance(Recency::Count newer) const noexcept {
  return 1 + newer.num_hot + static_cast<std::uint64_t>(newer.num_samples * sample_weight_ + 0.5);
}

void GhostIndex::count(std::uint64_t key, bool sampled, bool promoted) {
  bool hot = false;
  Recency::Count newer{};
  const bool known = recency_.find(key, hot, newer);
  if (hot) {
    hot_uses_ += 1;
    hot_hits_->add(distance(newer), 1);
  } else if (sampled) {
    Part& part = (*parts_)[part_of(key, kNumParts)];
    part.weight += sample_weight_;
    if (known) part.hits.add(distance(newer), sample_weight_);
  }
  // The use that makes a block hot is an ordinary one still: of a block that was not sampled its distance is not known.
  if (!hot && promoted) hot = recency_.count().num_hot < num_hot_max_;
  if (hot || sampled) used_.push_back({key, hot});
}

// Let what was counted long ago weigh less.
void GhostIndex::fade() {
  if (!options_.window_blocks || uses_ < 2 * static_cast<double>(*options_.window_blocks)) return;
  uses_ /= 2;
  hot_uses_ /= 2;
  hot_hits_->halve();
  for (Part& part : *parts_) {
    part.weight /= 2;
    part.hits.halve();
  }
}

void GhostIndex::touch_collected() {
  for (auto use = used_.rbegin(); use != used_.rend(); ++use) {
    bool hot = false;
    Recency::Count newer{};
    if (use->hot && recency_.count().num_hot >= num_hot_max_) {
      // No room for one more hot block; those that are hot already stay so.
      recency_.find(use->key, hot, newer);
      use->hot = hot;
    }
    if (!use->hot && recency_.count().num_samples >= options_.num_samples_max) make_room();
    if (use->hot || is_sampled(use->key)) recency_.use(use->key, use->hot);
  }
}

void GhostIndex::make_room() {
  const std::uint32_t aim = options_.num_samples_max - options_.num_samples_max / 8;
  if (options_.span_blocks) {
    const double span = static_cast<double>(*options_.span_blocks);
    recency_.filter([&](const Recency::Item& item, Recency::Count newer) {
      const bool beyond = newer.num_samples * sample_weight_ + newer.num_hot > span;
      return beyond && !item.hot ? Recency::Fate::kDrop : Recency::Fate::kKeep;
    });
  }
  while (recency_.count().num_samples > aim) {
    set_threshold(threshold_ - threshold_ / 8);
    recency_.filter([&](const Recency::Item& item, Recency::Count) {
      return item.hot || is_sampled(item.key) ? Recency::Fate::kKeep : Recency::Fate::kDrop;
    });
  }
}

// Set anew how many uses make a block hot, and let those go that have fallen below half of it. Between two reviews
// counters only grow, so a hot block is always one whose counter says that it may be.
void GhostIndex::review() {
  const std::uint64_t recent_max = options_.resolution_blocks == 0 ? kRecentMax : kRecentMax >> kTurnBits;
  if (num_recent_ >= recent_max) {
    sketch_->halve();
    num_recent_ /= 2;
  }
  next_review_ = std::min(num_recent_ + num_recent_ / 4, recent_max);
  hot_from_ = std::max(kHotFromMin, static_cast<std::uint32_t>(options_.hot_share * static_cast<double>(num_recent_)));
  hot_from_ = std::min<std::uint32_t>(hot_from_, std::numeric_limits<std::uint16_t>::max());
  recency_.filter([&](const Recency::Item& item, Recency::Count) {
    if (!item.hot || sketch_->count(item.key) >= hot_from_ / 2) return Recency::Fate::kKeep;
    return is_sampled(item.key) ? Recency::Fate::kKeepAsSample : Recency::Fate::kDrop;
  });
  if (recency_.count().num_samples > options_.num_samples_max) make_room();
}

}  // namespace tiercel
