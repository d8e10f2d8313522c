#include "simulate/links.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace tiercel {

std::size_t SimulatedLinks::add_lane(const LaneOptions& options) {
  for (const double seconds : {options.latency_s, options.block_s}) {
    if (!(seconds >= 0 && std::isfinite(seconds))) {
      throw std::invalid_argument("a lane's latency and its time for a block must be finite and not below 0");
    }
  }
  if (options.chunk_blocks < 1) throw std::invalid_argument("a lane's chunk must be at least one block");
  if (!options.shares_device || devices_.empty()) devices_.emplace_back(timeline_, flights_, devices_.size());
  SimulatedDevice& device = devices_.back();
  const std::size_t way = device.add_way({options.block_s, options.latency_s, options.chunk_blocks, options.loading});
  lanes_.push_back({&device, way, options.loading});
  return lanes_.size() - 1;
}

void SimulatedLinks::run(const LinksOwner& owner) {
  struct Running {
    const LinksOwner*& owner;
    ~Running() { owner = nullptr; }
  };
  if (owner_ != nullptr) throw std::logic_error("the links run already");
  owner_ = &owner;
  const Running running{owner_};
  while (!timeline_.is_empty()) {
    const TimelineEvent event = timeline_.pop();
    switch (event.kind) {
      case TimelineEvent::Kind::kOuter:
        owner.on_event(event.number);
        break;
      case TimelineEvent::Kind::kWake:
        devices_[event.index].wake();
        break;
      case TimelineEvent::Kind::kArrival:
        arrive(event.index);
        break;
    }
  }
}

void SimulatedLinks::submit(std::uint64_t ticket, std::span<const SimulatedMove> moves) {
  if (moves.empty()) return;
  auto plan = std::make_shared<SimulatedPlan>(SimulatedPlan{ticket, now_s(), {}, moves.size()});
  plan->moves.reserve(moves.size());
  for (const SimulatedMove& move : moves) {
    const auto number = static_cast<std::int64_t>(plan->moves.size());
    if (move.lane >= lanes_.size() || move.num_blocks < 1 || move.after < kNoMove || move.after >= number) {
      throw std::invalid_argument("a move has no lane, no blocks, or follows one that does not come before it");
    }
    if (move.after != kNoMove) plan->moves[static_cast<std::size_t>(move.after)].followed = true;
    plan->moves.push_back({move});
  }
  if (!plans_.emplace(ticket, plan).second) throw std::invalid_argument("a plan of this ticket is under way");
  for (const SimulatedMove& move : moves) {
    ++lanes_[move.lane].num_moves;
    lanes_[move.lane].num_blocks += move.num_blocks;
  }
  for (std::size_t number = 0; number < moves.size(); ++number) {
    if (moves[number].after == kNoMove) queue(*plan, number, 0, moves[number].num_blocks);
  }
}

void SimulatedLinks::cancel(std::uint64_t ticket) {
  const auto found = plans_.find(ticket);
  if (found == plans_.end()) return;
  if (owner_ == nullptr) throw std::logic_error("plans are cancelled during a run");
  // Held to the end: a new plan in its place would be taken for it.
  const std::shared_ptr<SimulatedPlan> plan = found->second;
  plan->cancelled = true;
  for (SimulatedDevice& device : devices_) {
    for (const WaitingPart& part : device.take(plan.get())) end(*plan, part.move, part.start, part.stop, false);
  }
}

void SimulatedLinks::queue(SimulatedPlan& plan, std::size_t number, std::int64_t start, std::int64_t stop) {
  const SimulatedPlan::Progress& progress = plan.moves[number];
  const Lane& lane = lanes_[progress.move.lane];
  const std::int64_t whole = lane.loading && progress.followed ? progress.move.num_blocks : 0;
  lane.device->add({&plan, number, start, stop, now_s(), whole}, lane.way);
}

void SimulatedLinks::arrive(std::size_t number) {
  const Flight flight = flights_[number];
  if (--flights_[number].num_events == 0) flights_.remove(number);
  if (flight.arrives_s != now_s()) return;  // its service was cut short, and it has arrived before
  end(*flight.plan, flight.move, flight.start, flight.stop, true);
}

// Enters that blocks of a move arrived or never will, lets the moves behind it follow, and reports it if it is done,
// after which the plan may be gone.
void SimulatedLinks::end(SimulatedPlan& plan, std::size_t number, std::int64_t start, std::int64_t stop, bool arrived) {
  SimulatedPlan::Progress& progress = plan.moves[number];
  Lane& lane = lanes_[progress.move.lane];
  const std::int64_t count = stop - start;
  lane.num_blocks -= count;
  progress.ended += count;
  if (arrived) {
    progress.arrived += count;
    lane.served_by().use.blocks += count;
  }
  const bool is_done = progress.ended == progress.move.num_blocks;
  if (progress.followed) follow(plan, number, start, stop, arrived && !plan.cancelled);
  if (is_done) report(plan, number);
}

void SimulatedLinks::follow(SimulatedPlan& plan, std::size_t number, std::int64_t start, std::int64_t stop,
                            bool arrived) {
  const std::int64_t first_block = plan.moves[number].move.first_block;
  for (std::size_t following = number + 1; following < plan.moves.size(); ++following) {
    const SimulatedMove& move = plan.moves[following].move;
    if (move.after != static_cast<std::int64_t>(number)) continue;
    const std::int64_t offset = move.first_block - first_block;
    const std::int64_t begin = std::max(std::int64_t{0}, start - offset);
    const std::int64_t end_block = std::min(move.num_blocks, stop - offset);
    if (begin >= end_block) continue;
    if (arrived) {
      queue(plan, following, begin, end_block);
    } else {
      end(plan, following, begin, end_block, false);
    }
  }
}

void SimulatedLinks::report(SimulatedPlan& plan, std::size_t number) {
  const SimulatedPlan::Progress& progress = plan.moves[number];
  Lane& lane = lanes_[progress.move.lane];
  const Way& way = lane.served_by();
  const std::int64_t num_arrived = progress.arrived;
  const double busy_s = num_arrived > 0 ? way.latency_s + static_cast<double>(num_arrived) * way.block_s : 0.0;
  const double queued_s = std::max(0.0, now_s() - plan.launched_s - busy_s);
  const MoveEnd move_end{plan.ticket, number, num_arrived, busy_s, queued_s};
  --lane.num_moves;
  if (--plan.num_open == 0) plans_.erase(plan.ticket);
  owner_->on_move_end(move_end);
}

}  // namespace tiercel
