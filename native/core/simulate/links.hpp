// The modelled links of one cache, what runs on them, and the virtual clock of all that happens.
//
// Plans are run as `tiercel.transfer` runs them on devices: a move that waits for another follows it part by part, and
// what a move did not bring because its plan was cancelled is the tail of its blocks. Whoever drives the model asks for
// events of its own between those of the links. Not thread-safe; the same calls give the same times on every machine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "simulate/device.hpp"
#include "simulate/timeline.hpp"

namespace tiercel {

inline constexpr std::int64_t kNoMove = -1;

// One direction of a tier's device.
struct LaneOptions {
  double latency_s = 0;
  double block_s = 0;  // 0: takes no time
  std::int64_t chunk_blocks = 1;
  bool loading = false;
  bool shares_device = false;  // with the lane before it, and goes behind that one
};

struct SimulatedMove {
  std::size_t lane;
  std::int64_t first_block;
  std::int64_t num_blocks;
  std::int64_t after;  // the move of the plan whose blocks it takes further, or kNoMove
};

// A plan under way.
struct SimulatedPlan {
  struct Progress {
    SimulatedMove move;
    bool followed = false;
    std::int64_t ended = 0;    // blocks that arrived or never will
    std::int64_t arrived = 0;  // of these
  };

  std::uint64_t ticket;
  double launched_s;
  std::vector<Progress> moves;
  std::size_t num_open;
  bool cancelled = false;
};

struct MoveEnd {
  std::uint64_t ticket;
  std::size_t move;
  std::int64_t num_arrived;  // leading blocks of the move
  double busy_s;             // what bringing these takes alone
  double queued_s;           // the rest of the time since the launch
};

// Who is told of what happens. Both may call anything but `run`; what they throw ends the run.
struct LinksOwner {
  std::function<void(std::uint64_t)> on_event;      // of the number that `at` returned
  std::function<void(const MoveEnd&)> on_move_end;  // once for each move of a submitted plan
};

class SimulatedLinks {
 public:
  SimulatedLinks() = default;
  SimulatedLinks(const SimulatedLinks&) = delete;
  SimulatedLinks& operator=(const SimulatedLinks&) = delete;

  // Returns its number. std::invalid_argument: an option is out of range.
  std::size_t add_lane(const LaneOptions& options);

  double now_s() const noexcept { return timeline_.now_s(); }
  // Asks for an event. std::invalid_argument: the time is past.
  std::uint64_t at(double time_s) { return timeline_.at(time_s, TimelineEvent::Kind::kOuter, 0); }
  // Runs events, and those that they ask for, until none is left.
  void run(const LinksOwner& owner);

  // Queues a plan's moves. std::invalid_argument: the ticket is under way, or a move names what is not there; nothing
  // is queued.
  void submit(std::uint64_t ticket, std::span<const SimulatedMove> moves);
  // Ends what has not started of a plan. During a run only; unknown tickets are left alone.
  void cancel(std::uint64_t ticket);

  std::int64_t num_moves(std::size_t lane) const { return lanes_.at(lane).num_moves; }    // waiting or running
  std::int64_t num_blocks(std::size_t lane) const { return lanes_.at(lane).num_blocks; }  // the same
  const LinkUse& use(std::size_t lane) const { return lanes_.at(lane).served_by().use; }
  // Plans with moves that have not ended.
  std::size_t num_open() const noexcept { return plans_.size(); }

 private:
  struct Lane {
    SimulatedDevice* device;
    std::size_t way;
    bool loading;
    std::int64_t num_moves = 0;
    std::int64_t num_blocks = 0;

    Way& served_by() const { return device->way(way); }
  };

  void queue(SimulatedPlan& plan, std::size_t number, std::int64_t start, std::int64_t stop);
  void arrive(std::size_t flight);
  void end(SimulatedPlan& plan, std::size_t number, std::int64_t start, std::int64_t stop, bool arrived);
  void follow(SimulatedPlan& plan, std::size_t number, std::int64_t start, std::int64_t stop, bool arrived);
  void report(SimulatedPlan& plan, std::size_t number);

  Timeline timeline_;
  Flights flights_;
  std::deque<SimulatedDevice> devices_;  // stay where they are
  std::vector<Lane> lanes_;
  std::unordered_map<std::uint64_t, std::shared_ptr<SimulatedPlan>> plans_;
  const LinksOwner* owner_ = nullptr;  // while it runs
};

}  // namespace tiercel
