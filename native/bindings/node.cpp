// Python's view of the node's hot path: the front of a node, and a client's end of a connection.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "arrays.hpp"
#include "bindings.hpp"
#include "keys.hpp"
#include "match_handle.hpp"
#include "node/call.hpp"
#include "node/front.hpp"

namespace nb = nanobind;

namespace tiercel::bindings {
namespace {

using node::FrontEvent;
using node::NodeCall;
using node::NodeFound;
using node::NodeFront;

node::Bytes to_bytes(const nb::bytes& bytes) { return std::as_bytes(std::span(bytes.c_str(), bytes.size())); }

nb::list to_list(const std::vector<node::FoundSegment>& found) {
  nb::list segments;
  for (const node::FoundSegment& segment : found) {
    segments.append(nb::make_tuple(segment.tier, segment.first_block, segment.num_blocks));
  }
  return segments;
}

nb::tuple to_tuple(const FrontEvent& event) {
  switch (event.kind) {
    case FrontEvent::Kind::kConnected:
      return nb::make_tuple("connected", event.connection, event.process);
    case FrontEvent::Kind::kMessage:
      return nb::make_tuple("message", event.connection, nb::bytes(event.text.data(), event.text.size()));
    case FrontEvent::Kind::kLeft:
      return nb::make_tuple("left", event.connection, event.text);
    case FrontEvent::Kind::kRead:
      return nb::make_tuple("read", event.client, event.sequence, event.first_block, event.num_blocks, event.seconds);
    case FrontEvent::Kind::kLooked:
      break;
  }
  return nb::make_tuple("looked", event.client, event.sequence, event.limit_blocks, event.matched_blocks, event.seconds,
                        to_list(event.segments), event.num_pending);
}

// The front's lock is taken as the index's is.
template <typename Function>
auto with(NodeFront& front, Function&& function) {
  return locked(front.mutex(), true, std::forward<Function>(function));
}

nb::list next(NodeFront& front, double timeout_s) {
  std::vector<FrontEvent> events;
  {
    const nb::gil_scoped_release release;
    NodeFront::Lock lock(front.mutex());
    events = front.next(lock, timeout_s);
  }
  nb::list tuples;
  for (const FrontEvent& event : events) tuples.append(to_tuple(event));
  return tuples;
}

nb::object take_match(NodeFront& front, std::uint64_t client, std::uint64_t lookup) {
  std::optional<node::OpenLookup> found =
      with(front, [&](NodeFront::Lock& lock) { return front.take_match(lock, client, lookup); });
  if (!found) return nb::none();
  return nb::make_tuple(MatchHandle(std::move(found->match)), std::move(found->sequence));
}

void return_match(NodeFront& front, std::uint64_t client, std::uint64_t lookup, MatchHandle& match,
                  std::shared_ptr<Sequence> sequence) {
  node::OpenLookup found{std::move(match.match), std::move(sequence)};
  with(front, [&](NodeFront::Lock& lock) { front.return_match(lock, client, lookup, std::move(found)); });
}

void drop_client(NodeFront& front, std::uint64_t client) {
  const nb::gil_scoped_release release;
  NodeFront::Lock lock(front.mutex());
  const std::unique_ptr<node::ClientState> dropped = front.drop_client(lock, client);
  lock.unlock();
}

nb::tuple client_stats(NodeFront& front, std::uint64_t client) {
  const node::ClientUse use = with(front, [&](NodeFront::Lock& lock) { return front.use_of(lock, client); });
  return nb::make_tuple(use.lookups, use.sequences, use.keys, use.outbox_bytes);
}

void bind_front(nb::module_& module) {
  using node::FrontCounts;
  using node::FrontLimits;
  nb::class_<FrontLimits>(module, "NodeFrontLimits", nb::is_final())
      .def(
          "__init__",
          [](FrontLimits* limits, std::size_t tokens_per_block, std::uint64_t origin, std::size_t clients,
             std::size_t connections, std::size_t lookups, std::size_t sequences, std::size_t keys, std::size_t roots,
             std::size_t inbox_messages, std::size_t inbox_bytes, std::size_t outbox_bytes, std::size_t looked,
             std::optional<std::uint32_t> read_tier) {
            new (limits) FrontLimits{{lookups, sequences, keys, roots, tokens_per_block, origin},
                                     clients,
                                     connections,
                                     inbox_messages,
                                     inbox_bytes,
                                     outbox_bytes,
                                     looked,
                                     read_tier.value_or(FrontLimits::kNoTier)};
          },
          nb::kw_only(), nb::arg("tokens_per_block") = 16, nb::arg("origin") = 0,
          nb::arg("clients") = FrontLimits{}.clients, nb::arg("connections") = FrontLimits{}.connections,
          nb::arg("lookups") = FrontLimits{}.client.lookups, nb::arg("sequences") = FrontLimits{}.client.sequences,
          nb::arg("keys") = FrontLimits{}.client.keys, nb::arg("roots") = FrontLimits{}.client.roots,
          nb::arg("inbox_messages") = FrontLimits{}.inbox_messages, nb::arg("inbox_bytes") = FrontLimits{}.inbox_bytes,
          nb::arg("outbox_bytes") = FrontLimits{}.outbox_bytes, nb::arg("looked") = FrontLimits{}.looked,
          nb::arg("read_tier") = nb::none());

  nb::class_<FrontCounts>(module, "NodeFrontCounts", nb::is_final())
      .def_ro("connections", &FrontCounts::connections)
      .def_ro("clients", &FrontCounts::clients)
      .def_ro("lookups", &FrontCounts::lookups)
      .def_ro("refused", &FrontCounts::refused)
      .def_ro("malformed", &FrontCounts::malformed)
      .def_ro("overflowed", &FrontCounts::overflowed)
      .def_ro("looked_dropped", &FrontCounts::looked_dropped);

  using Lock = NodeFront::Lock;
  nb::class_<NodeFront>(module, "NodeFront", nb::is_final())
      .def(nb::init<int, std::shared_ptr<Index>, const FrontLimits&>(), nb::arg("listener"), nb::arg("index"),
           nb::arg("limits"))
      .def("next", &next, nb::arg("timeout_s"))
      .def(
          "admit",
          [](NodeFront& self, std::uint64_t connection, std::uint64_t client, bool calls) {
            with(self, [&](Lock& lock) { self.admit(lock, connection, client, calls); });
          },
          nb::arg("connection"), nb::arg("client"), nb::arg("calls"))
      .def(
          "allow_root",
          [](NodeFront& self, std::uint64_t client, const nb::bytes& root) {
            const Key key = to_key(root, "root");
            with(self, [&](Lock& lock) { self.allow_root(lock, client, key); });
          },
          nb::arg("client"), nb::arg("root"))
      .def(
          "send",
          [](NodeFront& self, std::uint64_t connection, const nb::bytes& data, const std::vector<int>& fds) {
            return with(self, [&](Lock& lock) { return self.send(lock, connection, to_bytes(data), fds); });
          },
          nb::arg("connection"), nb::arg("data"), nb::arg("fds") = std::vector<int>())
      .def(
          "cut",
          [](NodeFront& self, std::uint64_t connection) {
            with(self, [&](Lock& lock) { self.cut(lock, connection); });
          },
          nb::arg("connection"))
      .def(
          "sequence",
          [](NodeFront& self, std::uint64_t client, std::uint32_t number) {
            return with(self, [&](Lock& lock) { return self.sequence(lock, client, number); });
          },
          nb::arg("client"), nb::arg("number"))
      .def("take_match", &take_match, nb::arg("client"), nb::arg("lookup"))
      .def("return_match", &return_match, nb::arg("client"), nb::arg("lookup"), nb::arg("match"), nb::arg("sequence"))
      .def("drop_client", &drop_client, nb::arg("client"))
      .def("client_stats", &client_stats, nb::arg("client"))
      .def("counts", [](NodeFront& self) { return with(self, [&](Lock& lock) { return self.counts(lock); }); })
      .def("close", &NodeFront::close, nb::call_guard<nb::gil_scoped_release>());
}

NodeFound lookup(NodeCall& call, Sequence& sequence, std::uint32_t remote, std::size_t num_known,
                 std::optional<std::size_t> limit_blocks, std::size_t engine_blocks, double timeout_s) {
  const std::size_t limit = limit_blocks.value_or(std::numeric_limits<std::size_t>::max());
  const nb::gil_scoped_release release;
  return call.lookup(sequence, {remote, num_known, limit, engine_blocks, timeout_s});
}

nb::bytes request(NodeCall& call, const nb::bytes& data, double timeout_s) {
  std::string answer;
  {
    const nb::gil_scoped_release release;
    answer = call.request(to_bytes(data), timeout_s);
  }
  return nb::bytes(answer.data(), answer.size());
}

void bind_call(nb::module_& module) {
  nb::class_<NodeFound>(module, "NodeFound", nb::is_final())
      .def_prop_ro("state", [](const NodeFound& self) { return static_cast<std::uint32_t>(self.state); })
      .def_ro("lookup", &NodeFound::lookup)
      .def_ro("matched_blocks", &NodeFound::matched_blocks)
      .def_ro("num_pending", &NodeFound::num_pending)
      .def_ro("num_known", &NodeFound::num_known)
      .def_prop_ro("segments", [](const NodeFound& self) { return to_list(self.segments); })
      .def_prop_ro("packed_slots", [](const NodeFound& self) {
        return nb::bytes(reinterpret_cast<const char*>(self.slots.data()), self.slots.size() * sizeof(std::uint32_t));
      });

  constexpr double kSendTimeoutS = 1.0;
  nb::class_<NodeCall>(module, "NodeCall", nb::is_final())
      .def(nb::init<int>(), nb::arg("fd"))
      .def("lookup", &lookup, nb::arg("sequence"), nb::arg("remote"), nb::arg("num_known"),
           nb::arg("limit_blocks").none(), nb::arg("engine_blocks"), nb::arg("timeout_s"))
      .def(
          "end_read",
          [](NodeCall& self, std::uint64_t lookup, std::uint32_t first_block, std::uint32_t num_blocks, double seconds,
             double timeout_s) {
            return self.end_read({lookup, first_block, num_blocks, seconds}, timeout_s);
          },
          nb::call_guard<nb::gil_scoped_release>(), nb::arg("lookup"), nb::arg("first_block"), nb::arg("num_blocks"),
          nb::arg("seconds"), nb::arg("timeout_s"))
      .def("request", &request, nb::arg("data"), nb::arg("timeout_s"))
      .def(
          "send",
          [](NodeCall& self, const nb::bytes& data, double timeout_s) {
            const nb::gil_scoped_release release;
            self.send(to_bytes(data), timeout_s);
          },
          nb::arg("data"), nb::arg("timeout_s") = kSendTimeoutS)
      .def("send_keys", &NodeCall::send_keys, nb::call_guard<nb::gil_scoped_release>(), nb::arg("sequence"),
           nb::arg("remote"), nb::arg("num_known"), nb::arg("stop"), nb::arg("timeout_s") = kSendTimeoutS)
      .def("close", &NodeCall::close);
}

}  // namespace

void bind_node(nb::module_& module) {
  bind_front(module);
  bind_call(module);
}

}  // namespace tiercel::bindings
