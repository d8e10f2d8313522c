#include "simulate/device.hpp"

#include <algorithm>

namespace tiercel {
namespace {

// Parts that a load's move which another one follows is served in while nothing else waits: the last bytes may come
// late by that share of the move. What a store passes on goes to a slower link, which hardly notices: it is served at
// once.
constexpr std::int64_t kSteps = 16;

// Chunks of a store that are served before the next store's turn: nobody waits for one of them. A load that arrives
// waits for one chunk, whatever this says.
constexpr std::int64_t kStoreTurnChunks = 8;

std::int64_t turn_blocks(const Way& way) {
  return way.loading ? way.chunk_blocks : way.chunk_blocks * kStoreTurnChunks;
}

}  // namespace

std::size_t Flights::add(const Flight& flight) {
  if (unused_.empty()) {
    flights_.push_back(flight);
    return flights_.size() - 1;
  }
  const std::size_t number = unused_.back();
  unused_.pop_back();
  flights_[number] = flight;
  return number;
}

std::size_t SimulatedDevice::add_way(const Way& way) {
  ways_.push_back(way);
  return ways_.size() - 1;
}

void SimulatedDevice::add(const WaitingPart& part, std::size_t way) {
  std::deque<WaitingPart>& waiting = ways_[way].waiting;
  if (!is_serving()) {
    waiting.push_back(part);
    serve();
    return;
  }
  if (way <= served_way_) {
    if (const auto rest = cut()) ways_[served_way_].waiting.push_back(*rest);
  }
  if (!waiting.empty() && waiting.back().plan == part.plan && waiting.back().move == part.move &&
      waiting.back().stop == part.start) {
    waiting.back().stop = part.stop;
  } else {
    waiting.push_back(part);
  }
  wake_at_end();
}

std::vector<WaitingPart> SimulatedDevice::take(const SimulatedPlan* plan) {
  std::vector<WaitingPart> taken;
  if (is_serving() && flights_[flight_].plan == plan) {
    if (const auto rest = cut()) taken.push_back(*rest);
  }
  const auto is_its = [plan](const WaitingPart& part) { return part.plan == plan; };
  for (Way& way : ways_) {
    std::copy_if(way.waiting.begin(), way.waiting.end(), std::back_inserter(taken), is_its);
    std::erase_if(way.waiting, is_its);
  }
  return taken;
}

void SimulatedDevice::wake() {
  if (is_serving()) return;
  wakes_s_ = -1;
  serve();
}

// Begins to serve what waits, if anything does. Called when nothing is served.
void SimulatedDevice::serve() {
  served_way_ = ways_.front().waiting.empty() ? ways_.size() - 1 : 0;
  Way& way = ways_[served_way_];
  if (way.waiting.empty()) return;
  const WaitingPart part = way.waiting.front();
  way.waiting.pop_front();
  const double now_s = timeline_.now_s();
  way.use.wait_s += std::max(0.0, now_s - part.queued_s);  // less than none, if what it waited for was cut short
  std::int64_t num_blocks = part.stop - part.start;
  std::int64_t limit = num_blocks;
  if (!way.waiting.empty()) {
    limit = turn_blocks(way);
  } else if (part.whole > 0) {
    limit = std::max(way.chunk_blocks, (part.whole + kSteps - 1) / kSteps);
  }
  num_blocks = std::min(num_blocks, limit);
  started_s_ = now_s;
  ends_s_ = now_s + static_cast<double>(num_blocks) * way.block_s;
  whole_ = part.whole;
  const std::int64_t stop = part.start + num_blocks;
  if (stop < part.stop) way.waiting.push_back({part.plan, part.move, stop, part.stop, ends_s_, part.whole});
  way.use.busy_s += ends_s_ - now_s;
  flight_ = flights_.add({part.plan, part.move, part.start, stop, 0, 0});
  arrive_later(flight_);
  if (!way.waiting.empty() || !ways_.back().waiting.empty()) wake_at_end();
}

void SimulatedDevice::arrive_later(std::size_t flight) {
  flights_[flight].arrives_s = ends_s_ + ways_[served_way_].latency_s;
  ++flights_[flight].num_events;
  timeline_.at(flights_[flight].arrives_s, TimelineEvent::Kind::kArrival, flight);
}

// Looks for what waits when the service in progress ends.
void SimulatedDevice::wake_at_end() {
  if (wakes_s_ == ends_s_) return;
  wakes_s_ = ends_s_;
  timeline_.at(ends_s_, TimelineEvent::Kind::kWake, number_);
}

std::optional<WaitingPart> SimulatedDevice::cut() {
  Flight& flight = flights_[flight_];
  Way& way = ways_[served_way_];
  if (flight.stop - flight.start <= way.chunk_blocks) return std::nullopt;
  const double chunk_s = way.block_s * static_cast<double>(way.chunk_blocks);
  const std::int64_t chunks = static_cast<std::int64_t>((timeline_.now_s() - started_s_) / chunk_s) + 1;
  const std::int64_t stop = flight.start + chunks * way.chunk_blocks;
  if (stop >= flight.stop) return std::nullopt;
  const double ends_s =
      std::max(timeline_.now_s(), started_s_ + static_cast<double>(stop - flight.start) * way.block_s);
  way.use.busy_s -= ends_s_ - ends_s;
  ends_s_ = ends_s;
  const WaitingPart rest{flight.plan, flight.move, stop, flight.stop, ends_s_, whole_};
  flight.stop = stop;
  arrive_later(flight_);
  return rest;
}

}  // namespace tiercel
