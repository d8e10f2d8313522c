// NodeFront: what the rest of the node asks of it.
#include <sys/epoll.h>

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "node/front.hpp"

namespace tiercel::node {
namespace {

std::chrono::steady_clock::time_point deadline_after(double timeout_s) {
  constexpr double kTimeoutMaxS = 3600.0;
  const double bounded_s = timeout_s > 0.0 ? std::min(timeout_s, kTimeoutMaxS) : 0.0;
  const std::chrono::duration<double> timeout(bounded_s);
  return std::chrono::steady_clock::now() + std::chrono::duration_cast<std::chrono::steady_clock::duration>(timeout);
}

}  // namespace

std::vector<FrontEvent> NodeFront::next(Lock& lock, double timeout_s) {
  std::vector<FrontEvent> taken = inbox_.wait(lock, deadline_after(timeout_s));
  for (const FrontEvent& event : taken) {
    if (event.kind == FrontEvent::Kind::kLeft) --num_left_;
    if (event.kind != FrontEvent::Kind::kMessage) continue;
    const auto place = connections_.find(event.connection);
    if (place != connections_.end()) --place->second.num_untaken;
  }
  if (!taken.empty()) resume_paused();
  return taken;
}

void NodeFront::resume_paused() {
  std::erase_if(paused_, [&](std::uint64_t number) {
    Connection& connection = connections_.at(number);
    if (must_wait(connection)) return false;
    connection.is_paused = false;
    watch(connection, EPOLL_CTL_ADD);
    return true;
  });
}

void NodeFront::admit(Lock&, std::uint64_t connection, std::uint64_t client, bool calls) {
  const auto place = connections_.find(connection);
  if (is_closed_) return;
  auto known = clients_.find(client);
  if (known == clients_.end()) {
    if (calls) throw std::invalid_argument("client: not known");
    if (clients_.size() >= limits_.clients) throw std::invalid_argument("client: too many are there");
  }
  if (place == connections_.end()) return;
  Connection& admitted = place->second;
  if (admitted.client != nullptr) throw std::invalid_argument("connection: it was admitted before");
  if (known == clients_.end()) {
    known = clients_.emplace(client, std::make_unique<ClientState>(limits_.client)).first;
  }
  admitted.client = known->second.get();
  admitted.client_number = client;
  admitted.calls = calls;
}

void NodeFront::allow_root(Lock&, std::uint64_t client, const Key& root) {
  const auto place = clients_.find(client);
  if (place == clients_.end()) return;
  if (!place->second->allow_root(root)) throw std::invalid_argument("root: the client has too many");
}

bool NodeFront::send(Lock&, std::uint64_t connection, Bytes datagram, std::span<const int> files) {
  if (datagram.size() > kDatagramBytesMax) throw std::invalid_argument("data: longer than a datagram may be");
  if (files.size() > kFilesMax) throw std::invalid_argument("fds: more than a datagram may carry");
  const auto place = connections_.find(connection);
  if (place == connections_.end()) return false;
  place->second.unread_lookup = 0;
  const bool sent = post(place->second, {&datagram, 1}, files);
  if (inbox_.take_wake()) inbox_.wake();
  return sent;
}

void NodeFront::cut(Lock&, std::uint64_t connection) {
  const auto place = connections_.find(connection);
  if (place == connections_.end()) return;
  end(place->second, "cut by the node");
  if (inbox_.take_wake()) inbox_.wake();
}

std::shared_ptr<Sequence> NodeFront::sequence(Lock&, std::uint64_t client, std::uint32_t number) {
  const auto place = clients_.find(client);
  return place == clients_.end() ? nullptr : place->second->find(number);
}

std::optional<OpenLookup> NodeFront::take_match(Lock&, std::uint64_t client, std::uint64_t lookup) {
  const auto place = clients_.find(client);
  return place == clients_.end() ? std::nullopt : place->second->take(lookup);
}

void NodeFront::return_match(Lock&, std::uint64_t client, std::uint64_t lookup, OpenLookup&& found) {
  const auto place = clients_.find(client);
  if (place != clients_.end()) place->second->hold(lookup, std::move(found));
}

std::unique_ptr<ClientState> NodeFront::drop_client(Lock&, std::uint64_t client) {
  const auto place = clients_.find(client);
  if (place == clients_.end()) return nullptr;
  std::vector<std::uint64_t> numbers;
  for (const auto& [number, connection] : connections_) {
    if (connection.client == place->second.get()) numbers.push_back(number);
  }
  for (const std::uint64_t number : numbers) end(connections_.at(number), "its client has ended");
  std::unique_ptr<ClientState> dropped = std::move(place->second);
  clients_.erase(place);
  if (inbox_.take_wake()) inbox_.wake();
  return dropped;
}

ClientUse NodeFront::use_of(Lock&, std::uint64_t client) const {
  const auto place = clients_.find(client);
  if (place == clients_.end()) return {};
  const ClientState& state = *place->second;
  ClientUse use{state.num_lookups(), state.num_sequences(), state.num_keys(), 0};
  for (const auto& [number, connection] : connections_) {
    if (connection.client == &state) use.outbox_bytes += connection.outbox_bytes;
  }
  return use;
}

FrontCounts NodeFront::counts(Lock&) const {
  FrontCounts counts = counts_;
  counts.connections = connections_.size();
  counts.clients = clients_.size();
  return counts;
}

}  // namespace tiercel::node
