// Python's view of the simulator's links. Its callbacks are Python's, so it keeps the GIL.
#include <nanobind/stl/array.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <vector>

#include "bindings.hpp"
#include "simulate/links.hpp"

namespace nb = nanobind;

namespace tiercel::bindings {
namespace {

using MoveNumbers = std::array<std::int64_t, 4>;  // lane, first block, blocks, the move before it

void submit(SimulatedLinks& self, std::uint64_t ticket, const std::vector<MoveNumbers>& numbers) {
  std::vector<SimulatedMove> moves;
  moves.reserve(numbers.size());
  for (const auto& [lane, first_block, num_blocks, after] : numbers) {
    moves.push_back({static_cast<std::size_t>(lane), first_block, num_blocks, after});
  }
  self.submit(ticket, moves);
}

void run(SimulatedLinks& self, const nb::callable& on_event, const nb::callable& on_move_end) {
  self.run({[&](std::uint64_t number) { on_event(number); },
            [&](const MoveEnd& end) { on_move_end(end.ticket, end.move, end.num_arrived, end.busy_s, end.queued_s); }});
}

}  // namespace

void bind_simulate(nb::module_& module) {
  nb::class_<LinkUse>(module, "LinkUse", nb::is_final())
      .def_ro("blocks", &LinkUse::blocks)
      .def_ro("busy_s", &LinkUse::busy_s)
      .def_ro("wait_s", &LinkUse::wait_s);

  nb::class_<SimulatedLinks>(module, "SimulatedLinks")
      .def(nb::init<>())
      .def(
          "add_lane",
          [](SimulatedLinks& self, double latency_s, double block_s, std::int64_t chunk_blocks, bool loading,
             bool shares_device) {
            return self.add_lane({latency_s, block_s, chunk_blocks, loading, shares_device});
          },
          nb::kw_only(), nb::arg("latency_s"), nb::arg("block_s"), nb::arg("chunk_blocks"), nb::arg("loading"),
          nb::arg("shares_device"))
      .def_prop_ro("now_s", &SimulatedLinks::now_s)
      .def("schedule", &SimulatedLinks::at, nb::arg("time_s"))
      .def("run_events", &run, nb::arg("on_event"), nb::arg("on_move_end"))
      .def("submit", &submit, nb::arg("ticket"), nb::arg("moves"))
      .def("cancel", &SimulatedLinks::cancel, nb::arg("ticket"))
      .def("num_moves", &SimulatedLinks::num_moves, nb::arg("lane"))
      .def("num_blocks", &SimulatedLinks::num_blocks, nb::arg("lane"))
      .def("use", &SimulatedLinks::use, nb::arg("lane"))
      .def_prop_ro("num_open", &SimulatedLinks::num_open);
}

}  // namespace tiercel::bindings
