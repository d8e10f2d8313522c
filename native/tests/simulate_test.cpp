// The simulator's links: times worked out by hand, and that nothing outlives a run.
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "check.hpp"
#include "random.hpp"
#include "simulate/links.hpp"

namespace tiercel {
namespace {

using testing::Random;

constexpr LaneOptions kLane{.latency_s = 0, .block_s = 1, .chunk_blocks = 1, .loading = true, .shares_device = false};

struct Ended {
  MoveEnd end;
  double at_s;
};

// Runs to the end; what was ended, in order.
std::vector<Ended> run(SimulatedLinks& links, const std::function<void(std::uint64_t)>& on_event) {
  std::vector<Ended> ended;
  links.run({on_event, [&](const MoveEnd& end) { ended.push_back({end, links.now_s()}); }});
  return ended;
}

TEST(whoever_arrives_waits_for_the_chunk_in_progress_and_then_both_take_turns) {
  SimulatedLinks links;
  const std::size_t lane = links.add_lane(kLane);
  links.submit(1, std::vector<SimulatedMove>{{lane, 0, 4, kNoMove}});
  links.at(1.5);
  const auto ended = run(links, [&](std::uint64_t) {
    links.submit(2, std::vector<SimulatedMove>{{lane, 0, 3, kNoMove}});
  });
  // A1 A2 A3 B1 A4 B2 B3: what is left of A stands in the queue before B comes.
  CHECK(ended.size() == 2);
  CHECK(ended[0].end.ticket == 1 && ended[0].at_s == 5);
  CHECK(ended[1].end.ticket == 2 && ended[1].at_s == 7);
  CHECK(links.use(lane).blocks == 7 && links.use(lane).busy_s == 7);
}

TEST(a_cancelled_plan_ends_with_its_chunk_in_progress_and_a_new_one_in_its_place_is_left_alone) {
  SimulatedLinks links;
  const std::size_t load = links.add_lane(kLane);
  const std::size_t other = links.add_lane(kLane);
  links.submit(1, std::vector<SimulatedMove>{{load, 0, 4, kNoMove}, {other, 0, 4, 0}});
  links.at(2.5);
  bool replaced = false;
  std::vector<Ended> ended;
  links.run({[&](std::uint64_t) { links.cancel(1); },
             [&](const MoveEnd& end) {
               ended.push_back({end, links.now_s()});
               if (replaced) return;
               replaced = true;
               links.submit(2, std::vector<SimulatedMove>{{other, 0, 2, kNoMove}});
             }});
  std::int64_t arrived[2] = {0, 0};
  for (const Ended& one : ended) {
    if (one.end.ticket == 1) arrived[one.end.move] = one.end.num_arrived;
  }
  CHECK(ended.size() == 3);
  CHECK(arrived[0] == 3);
  CHECK(arrived[1] == 2);
  CHECK(ended.back().end.ticket == 2 && ended.back().end.num_arrived == 2);
  CHECK(links.num_open() == 0);
}

TEST(every_move_ends_once_and_lanes_are_empty_afterwards_whatever_is_cancelled) {
  Random random(testing::seed());
  for (int round = 0; round < 200; ++round) {
    SimulatedLinks links;
    for (std::size_t lane = 0; lane < 4; ++lane) {
      links.add_lane({.latency_s = 0.25 * static_cast<double>(random.below(3)),
                      .block_s = 0.125 * static_cast<double>(random.below(4)),
                      .chunk_blocks = static_cast<std::int64_t>(1 + random.below(3)),
                      .loading = lane % 2 == 0,
                      .shares_device = lane == 3});
    }
    std::uint64_t ticket = 0;
    std::size_t num_moves = 0;
    for (int event = 0; event < 40; ++event) links.at(0.3 * static_cast<double>(random.below(60)));
    const auto ended = run(links, [&](std::uint64_t) {
      if (ticket > 0 && random.below(3) == 0) return links.cancel(1 + random.below(ticket));
      const auto blocks = static_cast<std::int64_t>(1 + random.below(40));
      std::vector<SimulatedMove> moves{{2 * random.below(2), 0, blocks, kNoMove}};
      if (random.below(2) == 0) moves.push_back({1 + 2 * random.below(2), 0, blocks, 0});
      num_moves += moves.size();
      links.submit(++ticket, moves);
    });
    CHECK(ended.size() == num_moves);
    CHECK(links.num_open() == 0);
    for (std::size_t lane = 0; lane < 4; ++lane) {
      CHECK(links.num_moves(lane) == 0);
      CHECK(links.num_blocks(lane) == 0);
      CHECK(links.use(lane).wait_s >= 0);
    }
  }
}

TEST(what_no_link_can_run_is_refused) {
  SimulatedLinks links;
  CHECK_THROWS(std::invalid_argument, links.add_lane({.block_s = -1}));
  CHECK_THROWS(std::invalid_argument, links.add_lane({.chunk_blocks = 0}));
  const std::size_t lane = links.add_lane(kLane);
  CHECK_THROWS(std::invalid_argument, links.submit(1, std::vector<SimulatedMove>{{lane + 1, 0, 1, kNoMove}}));
  CHECK_THROWS(std::invalid_argument, links.submit(1, std::vector<SimulatedMove>{{lane, 0, 1, 0}}));
  CHECK_THROWS(std::invalid_argument, links.at(-1));
  CHECK(links.num_open() == 0 && links.num_moves(lane) == 0);
}

}  // namespace
}  // namespace tiercel
