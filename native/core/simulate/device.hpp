// Links that transfers share: one transfer's bytes at a time, loads ahead of stores, transfers of a kind in turns.
//
// A transfer is served in chunks, as `tiercel.transfer` does it, and what is left of it goes to the end of its queue.
// While nothing else waits, consecutive chunks are one event; whoever arrives then waits for the end of the chunk in
// progress only. The latency keeps a transfer's bytes on their way without keeping others off the link.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "simulate/timeline.hpp"

namespace tiercel {

struct SimulatedPlan;  // whose parts a device serves; links.hpp says more of it

// Blocks [start, stop) of a move that wait for their turn.
struct WaitingPart {
  SimulatedPlan* plan;
  std::size_t move;
  std::int64_t start;
  std::int64_t stop;
  double queued_s;
  std::int64_t whole;  // blocks of the move if it is a load's and another one follows it, else 0
};

// Blocks of a move that are served or on their way.
struct Flight {
  SimulatedPlan* plan = nullptr;
  std::size_t move = 0;
  std::int64_t start = 0;
  std::int64_t stop = 0;
  double arrives_s = 0;
  std::uint32_t num_events = 0;  // that look at it: those of services that were cut short come too late
};

class Flights {
 public:
  std::size_t add(const Flight& flight);
  void remove(std::size_t number) { unused_.push_back(number); }
  Flight& operator[](std::size_t number) { return flights_[number]; }

 private:
  std::vector<Flight> flights_;
  std::vector<std::size_t> unused_;
};

// What a link was used for.
struct LinkUse {
  std::int64_t blocks = 0;  // that it brought
  double busy_s = 0;        // moving bytes
  double wait_s = 0;        // of all parts, for their turns
};

// One direction of a device.
struct Way {
  double block_s;
  double latency_s;
  std::int64_t chunk_blocks;
  bool loading;
  LinkUse use = {};
  std::deque<WaitingPart> waiting = {};
};

// Serves the ways that share it, the first one's parts ahead of the others'.
class SimulatedDevice {
 public:
  // number: its events' index. The timeline and the flights must outlive it.
  SimulatedDevice(Timeline& timeline, Flights& flights, std::size_t number)
      : timeline_(timeline), flights_(flights), number_(number) {}

  // Loads' way first. Returns its number.
  std::size_t add_way(const Way& way);
  Way& way(std::size_t number) { return ways_[number]; }

  void add(const WaitingPart& part, std::size_t way);
  // Removes what has not been served of a plan; a chunk in progress goes on.
  std::vector<WaitingPart> take(const SimulatedPlan* plan);
  void wake();

 private:
  bool is_serving() const noexcept { return ends_s_ > timeline_.now_s(); }
  void serve();
  void wake_at_end();
  void arrive_later(std::size_t flight);
  // Ends the service in progress with its chunk. Returns what is left, if anything is.
  std::optional<WaitingPart> cut();

  Timeline& timeline_;
  Flights& flights_;
  std::size_t number_;
  std::vector<Way> ways_;
  std::size_t flight_ = 0;  // served last; until `ends_s_` it is in service
  std::int64_t whole_ = 0;  // of that one
  std::size_t served_way_ = 0;
  double started_s_ = 0;
  double ends_s_ = 0;
  double wakes_s_ = -1;  // when it looks next for what waits
};

}  // namespace tiercel
