#include "ghost/ghost_index.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

namespace tiercel {

namespace {

constexpr std::uint64_t kReviewFirst = 4096;
constexpr std::uint64_t kRecentMax = std::uint64_t{1} << 22;
constexpr std::uint32_t kHotFromMin = 16;

void check_options(const GhostOptions& options) {
  const auto is_share = [](double share) { return share > 0 && share <= 1; };
  if (!is_share(options.sample_rate)) throw std::invalid_argument("sample_rate: more than 0 and at most 1");
  if (!is_share(options.hot_share)) throw std::invalid_argument("hot_share: more than 0 and at most 1");
  if (options.num_samples_max < 64 || options.num_samples_max > (1u << 26)) {
    throw std::invalid_argument("num_samples_max: 64 to 2^26");
  }
  if (options.span_blocks == 0) throw std::invalid_argument("span_blocks: at least 1");
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

}  // namespace

GhostIndex::GhostIndex(const GhostOptions& options)
    : options_(checked(options)),
      recency_(options.num_samples_max + num_hot_max()),
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
  threshold_ = threshold_of(options_.sample_rate);
  num_blocks_ = num_hot_uses_ = num_recent_ = 0;
  next_review_ = kReviewFirst;
  hot_from_ = kHotFromMin;
}

double GhostIndex::rate() const noexcept { return std::ldexp(static_cast<double>(threshold_), -64); }

// A block stays hot down to half the share, so there can be twice as many.
std::size_t GhostIndex::num_hot_max() const noexcept {
  return std::min<std::size_t>(static_cast<std::size_t>(2 / options_.hot_share), options_.num_samples_max);
}

void GhostIndex::observe(Sequence& sequence, std::size_t num_blocks) {
  sequence.hash_to(num_blocks);
  observe_hashed(sequence, num_blocks);
}

void GhostIndex::observe_hashed(Sequence& sequence, std::size_t num_blocks) {
  const std::size_t stop = std::min(sequence.num_hashed_blocks(), num_blocks);
  const std::lock_guard lock(mutex_);
  const Sequence::BlockRange left = sequence.exchange_uncounted({});
  const std::size_t start = std::max<std::size_t>(stop, left.start);
  const std::size_t end = std::max<std::size_t>(num_blocks, left.stop);
  if (start < end) sequence.exchange_uncounted({static_cast<std::uint32_t>(start), static_cast<std::uint32_t>(end)});
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
  const std::uint32_t hot_while = hot_from_ / 2;
  for (std::size_t block = start; block < stop;) {
    const std::span<const Key> keys = sequence.stable_keys(block, stop);
    for (const Key& key : keys) {
      const std::uint64_t bits = std::max<std::uint64_t>(key.hash64(), 1);
      const bool sampled = is_sampled(bits);
      bool hot = false;
      Recency::Count newer;
      const bool known = sketch_->count(bits) >= hot_while && recency_.find(bits, hot, newer);
      if (sampled || (known && hot)) used_.push_back({bits, known && hot});
    }
    block += keys.size();
  }
}

// Count the uses of consecutive blocks and note those to touch. Most blocks are neither hot nor sampled: for them this
// is one counter and two comparisons.
void GhostIndex::collect_uses(Sequence& sequence, std::size_t start, std::size_t stop) {
  const std::uint32_t hot_while = hot_from_ / 2;
  for (std::size_t block = start; block < stop;) {
    const std::span<const Key> keys = sequence.stable_keys(block, stop);
    for (const Key& key : keys) {
      const std::uint64_t bits = std::max<std::uint64_t>(key.hash64(), 1);
      const std::uint32_t num_uses = sketch_->add(bits);
      const bool sampled = is_sampled(bits);
      if (sampled || num_uses >= hot_while) count(bits, sampled, num_uses >= hot_from_);
    }
    block += keys.size();
  }
  num_blocks_ += stop - start;
  num_recent_ += stop - start;
}

void GhostIndex::count(std::uint64_t key, bool sampled, bool promoted) {
  bool hot = false;
  Recency::Count newer{};
  const bool known = recency_.find(key, hot, newer);
  std::uint64_t distance = 0;
  if (known) distance = 1 + newer.num_hot + static_cast<std::uint64_t>(std::llround(newer.num_samples / rate()));
  if (hot) {
    ++num_hot_uses_;
    hot_hits_->add(distance, 1);
  } else if (sampled) {
    Part& part = (*parts_)[part_of(key, kNumParts)];
    part.weight += 1 / rate();
    if (known) part.hits.add(distance, 1 / rate());
  }
  // The use that makes a block hot is an ordinary one still: of a block that was not sampled its distance is not known.
  if (!hot && promoted) hot = recency_.count().num_hot < num_hot_max();
  if (hot || sampled) used_.push_back({key, hot});
}

void GhostIndex::touch_collected() {
  for (auto use = used_.rbegin(); use != used_.rend(); ++use) {
    bool hot = false;
    Recency::Count newer{};
    if (use->hot && recency_.count().num_hot >= num_hot_max()) {
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
      const bool beyond = newer.num_samples / rate() + newer.num_hot > span;
      return beyond && !item.hot ? Recency::Fate::kDrop : Recency::Fate::kKeep;
    });
  }
  while (recency_.count().num_samples > aim) {
    threshold_ -= threshold_ / 8;
    recency_.filter([&](const Recency::Item& item, Recency::Count) {
      return item.hot || is_sampled(item.key) ? Recency::Fate::kKeep : Recency::Fate::kDrop;
    });
  }
}

// Set anew how many uses make a block hot, and let those go that have fallen below half of it. Between two reviews
// counters only grow, so a hot block is always one whose counter says that it may be.
void GhostIndex::review() {
  if (num_recent_ >= kRecentMax) {
    sketch_->halve();
    num_recent_ /= 2;
  }
  next_review_ = std::min(num_recent_ + num_recent_ / 4, kRecentMax);
  hot_from_ = std::max(kHotFromMin, static_cast<std::uint32_t>(options_.hot_share * static_cast<double>(num_recent_)));
  hot_from_ = std::min<std::uint32_t>(hot_from_, std::numeric_limits<std::uint16_t>::max());
  recency_.filter([&](const Recency::Item& item, Recency::Count) {
    if (!item.hot || sketch_->count(item.key) >= hot_from_ / 2) return Recency::Fate::kKeep;
    return is_sampled(item.key) ? Recency::Fate::kKeepAsSample : Recency::Fate::kDrop;
  });
  if (recency_.count().num_samples > options_.num_samples_max) make_room();
}

std::vector<HitRate> GhostIndex::curve(std::span<const std::uint64_t> capacities) const {
  const std::lock_guard lock(mutex_);
  double weight = 0;
  for (const Part& part : *parts_) weight += part.weight;
  const double num_blocks = static_cast<double>(num_blocks_);
  const double num_others = static_cast<double>(num_blocks_ - num_hot_uses_);
  std::vector<HitRate> rates;
  rates.reserve(capacities.size());
  for (const std::uint64_t capacity : capacities) {
    if (options_.span_blocks && capacity > *options_.span_blocks) {
      throw std::invalid_argument("capacities: " + std::to_string(capacity) +
                                  " is above span_blocks = " + std::to_string(*options_.span_blocks));
    }
    std::array<double, kNumParts> hits;
    double sum = 0;
    for (std::size_t part = 0; part < kNumParts; ++part) sum += hits[part] = (*parts_)[part].hits.sum_to(capacity);
    const double ratio = weight == 0 ? 0 : sum / weight;
    double squares = 0;
    for (std::size_t part = 0; part < kNumParts; ++part) {
      const double apart = hits[part] - ratio * (*parts_)[part].weight;
      squares += apart * apart;
    }
    const double error = weight == 0 ? 0 : std::sqrt(squares * kNumParts / (kNumParts - 1)) / weight;
    if (num_blocks_ == 0) {
      rates.push_back({0, 0});
    } else {
      rates.push_back(
          {(hot_hits_->sum_to(capacity) + ratio * num_others) / num_blocks, error * num_others / num_blocks});
    }
  }
  return rates;
}

GhostStats GhostIndex::stats() const {
  const std::lock_guard lock(mutex_);
  const Recency::Count count = recency_.count();
  const std::size_t num_bytes = sizeof(*this) + recency_.num_bytes() + sizeof(UseSketch) +
                                sizeof(*parts_->data()) * kNumParts + sizeof(DistanceHistogram) +
                                used_.capacity() * sizeof(Use);
  return {num_blocks_, rate(), count.num_samples, count.num_hot, num_bytes};
}

}  // namespace tiercel
