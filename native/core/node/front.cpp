#include "node/front.hpp"

#include <fcntl.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <stdexcept>
#include <system_error>
#include <utility>

namespace tiercel::node {
namespace {

constexpr std::uint64_t kStopTag = ~std::uint64_t{0};
constexpr std::uint64_t kListenerTag = kStopTag - 1;
constexpr std::uint64_t kFirstConnection = 1;
constexpr int kDatagramsAtOnce = 8;  // of a connection, before others have their turn
constexpr int kListenerPauseMs = 100;

Descriptor owned(int number, const char* what) {
  if (number < 0) throw std::system_error(errno, std::generic_category(), what);
  return Descriptor(number);
}

void check_limits(const FrontLimits& limits) {
  const auto check = [](bool holds, const char* what) {
    if (!holds) throw std::invalid_argument(what);
  };
  check(limits.client.keys >= kSequenceBlocksMax, "keys: at least those of one sequence, 65536");
  check(limits.client.sequences > 0, "sequences: at least 1");
  check(limits.client.lookups > 0, "lookups: at least 1");
  check(limits.inbox_messages > 0, "inbox_messages: at least 1");
  check(limits.connections > 0, "connections: at least 1");
  Sequence(Key{}, limits.client.tokens_per_block);  // throws if it is no power of two
}

}  // namespace

NodeFront::NodeFront(int listener, std::shared_ptr<Index> index, const FrontLimits& limits)
    : limits_((check_limits(limits), limits)),
      index_(std::move(index)),
      listener_(duplicate(listener)),
      epoll_(owned(::epoll_create1(EPOLL_CLOEXEC), "cannot make an epoll set")),
      stop_(owned(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "cannot make an eventfd")),
      inbox_(limits.looked),
      next_connection_(kFirstConnection),
      buffer_(kDatagramBytesMax),
      keys_(kKeysMax) {
  segments_.reserve(kSegmentsMax);
  const int flags = ::fcntl(listener_.number(), F_GETFL);
  if (flags < 0 || ::fcntl(listener_.number(), F_SETFL, flags | O_NONBLOCK) < 0) {
    throw std::system_error(errno, std::generic_category(), "cannot make the listener non-blocking");
  }
  epoll_event stopping{.events = EPOLLIN, .data = {.u64 = kStopTag}};
  epoll_event listening{.events = EPOLLIN, .data = {.u64 = kListenerTag}};
  if (::epoll_ctl(epoll_.number(), EPOLL_CTL_ADD, stop_.number(), &stopping) != 0 ||
      ::epoll_ctl(epoll_.number(), EPOLL_CTL_ADD, listener_.number(), &listening) != 0) {
    throw std::system_error(errno, std::generic_category(), "cannot watch the listener");
  }
  thread_ = std::thread(&NodeFront::run, this);
}

void NodeFront::close() {
  const std::lock_guard closing(closing_);
  if (thread_.joinable()) {
    const std::uint64_t one = 1;
    while (::write(stop_.number(), &one, sizeof one) < 0 && errno == EINTR) {
    }
    thread_.join();
  }
  std::unordered_map<std::uint64_t, std::unique_ptr<ClientState>> clients;
  const std::lock_guard lock(mutex_);
  is_closed_ = true;
  inbox_.close();
  for (const auto& [number, connection] : connections_) ::shutdown(connection.socket.number(), SHUT_RDWR);
  connections_.clear();
  paused_.clear();
  clients.swap(clients_);
}

void NodeFront::run() {
  std::array<epoll_event, 64> events;
  while (true) {
    const bool stays_awake = std::chrono::steady_clock::now() < awake_until_;
    const int timeout_ms = stays_awake ? 0 : listener_paused_ ? kListenerPauseMs : -1;
    const int num_events = ::epoll_wait(epoll_.number(), events.data(), static_cast<int>(events.size()), timeout_ms);
    if (listener_paused_ && !stays_awake) resume_listener();
    if (num_events == 0 && stays_awake) ::sched_yield();
    for (int at = 0; at < num_events; ++at) {
      const epoll_event& event = events[static_cast<std::size_t>(at)];
      if (event.data.u64 == kStopTag) return;
      if (event.data.u64 == kListenerTag) {
        accept_all();
      } else {
        serve(event.data.u64, event.events);
      }
      bool wake = false;
      {
        const std::lock_guard lock(mutex_);
        wake = inbox_.take_wake();
      }
      if (wake) inbox_.wake();
    }
  }
}

void NodeFront::accept_all() {
  while (true) {
    const int number = ::accept4(listener_.number(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (number < 0) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      if (errno != EAGAIN && errno != EWOULDBLOCK) pause_listener();  // no descriptors or memory left
      return;
    }
    Descriptor socket(number);
    const Peer peer = peer_of(number);
    const Lock lock(mutex_);
    if (peer.user != ::geteuid() || connections_.size() + num_left_ >= limits_.connections) {
      ++counts_.refused;
      continue;
    }
    const std::uint64_t name = next_connection_++;
    Connection& connection = connections_.try_emplace(name, Connection{name, std::move(socket)}).first->second;
    watch(connection, EPOLL_CTL_ADD);
    inbox_.add({.kind = FrontEvent::Kind::kConnected, .connection = name, .process = peer.process});
  }
}

void NodeFront::pause_listener() {
  ::epoll_ctl(epoll_.number(), EPOLL_CTL_DEL, listener_.number(), nullptr);
  listener_paused_ = true;
}

void NodeFront::resume_listener() {
  epoll_event listening{.events = EPOLLIN, .data = {.u64 = kListenerTag}};
  listener_paused_ = ::epoll_ctl(epoll_.number(), EPOLL_CTL_ADD, listener_.number(), &listening) != 0;
}

// Level-triggered, so that nothing is lost by reading only some of what is there.
void NodeFront::watch(const Connection& connection, int operation) noexcept {
  const std::uint32_t writing = connection.outbox.empty() ? 0 : std::uint32_t{EPOLLOUT};
  epoll_event event{.events = EPOLLIN | writing, .data = {.u64 = connection.number}};
  ::epoll_ctl(epoll_.number(), operation, connection.socket.number(), &event);
}

void NodeFront::serve(std::uint64_t number, std::uint32_t flags) {
  const Lock lock(mutex_);
  const auto place = connections_.find(number);
  if (place == connections_.end()) return;  // cut meanwhile
  Connection& connection = place->second;
  if ((flags & EPOLLOUT) != 0) flush(connection);
  if ((flags & ~std::uint32_t{EPOLLOUT}) == 0) return;
  for (int left = kDatagramsAtOnce; left > 0 && receive(connection); --left) {
  }
}

bool NodeFront::must_wait(const Connection& connection) const noexcept {
  if (connection.num_untaken >= limits_.inbox_messages) return true;
  // Others' messages do not keep a connection from its first one, and so not from looking up.
  return connection.num_untaken != 0 && inbox_.num_bytes() >= limits_.inbox_bytes;
}

bool NodeFront::receive(Connection& connection) {
  if (connection.is_paused) return false;
  if (must_wait(connection)) {
    ::epoll_ctl(epoll_.number(), EPOLL_CTL_DEL, connection.socket.number(), nullptr);
    connection.is_paused = true;
    paused_.push_back(connection.number);
    return false;
  }
  const Received received = receive_now(connection.socket.number(), buffer_);
  if (received.peer_left_unread && connection.client != nullptr && connection.unread_lookup != 0) {
    connection.client->release(connection.unread_lookup);  // nobody will ever know its number
  }
  std::string_view malformed;
  switch (received.state) {
    case Received::State::kNone:
      return false;
    case Received::State::kEnd:
      end(connection, "closed by the peer");
      return false;
    case Received::State::kTooLong:
      malformed = "a datagram longer than any may be";
      break;
    case Received::State::kDatagram: {
      connection.was_answered = false;
      connection.unread_lookup = 0;
      const std::uint64_t number = connection.number;
      malformed = handle(connection, Bytes(buffer_).first(received.num_bytes));
      if (!connections_.contains(number)) return false;
      break;
    }
  }
  if (malformed.empty()) return !connection.was_answered;  // nobody asks again before the answer has come
  ++counts_.malformed;
  const std::string refusal = refused_datagram(malformed);
  const Bytes part = std::as_bytes(std::span(refusal));
  send_now(connection.socket.number(), {&part, 1});
  end(connection, malformed);
  return false;
}

void NodeFront::flush(Connection& connection) {
  while (!connection.outbox.empty()) {
    const Outgoing& first = connection.outbox.front();
    const Bytes part = std::as_bytes(std::span(first.datagram));
    const Sent sent = send_now(connection.socket.number(), {&part, 1}, first.files);
    if (sent == Sent::kWouldBlock) return;
    if (sent == Sent::kGone) {  // what it sent before is still to be read, and its end behind that
      connection.outbox.clear();
      connection.outbox_bytes = 0;
      break;
    }
    connection.outbox_bytes -= first.datagram.size();
    connection.outbox.pop_front();
  }
  if (!connection.is_paused) watch(connection, EPOLL_CTL_MOD);
}

bool NodeFront::post(Connection& connection, std::span<const Bytes> parts, std::span<const int> files) {
  std::vector<Descriptor> copies;
  for (const int file : files) copies.push_back(duplicate(file));
  if (connection.outbox.empty()) {
    const Sent sent = send_now(connection.socket.number(), parts, copies);
    if (sent == Sent::kAll) return true;
    if (sent == Sent::kGone) return false;  // what it sent before is still to be read, and its end behind that
  }
  Outgoing outgoing{{}, std::move(copies)};
  for (const Bytes part : parts) outgoing.datagram.append(reinterpret_cast<const char*>(part.data()), part.size());
  connection.outbox_bytes += outgoing.datagram.size();
  connection.outbox.push_back(std::move(outgoing));
  if (connection.outbox_bytes > limits_.outbox_bytes) {
    ++counts_.overflowed;
    end(connection, "does not read what is sent to it");
    return false;
  }
  if (connection.outbox.size() == 1 && !connection.is_paused) watch(connection, EPOLL_CTL_MOD);
  return true;
}

void NodeFront::end(Connection& connection, std::string_view reason) {
  if (connection.client != nullptr && connection.unread_lookup != 0 && !connection.outbox.empty()) {
    connection.client->release(connection.unread_lookup);
  }
  const std::uint64_t number = connection.number;
  std::string text(reason);
  if (connection.is_paused) {
    std::erase(paused_, number);
  } else {
    ::epoll_ctl(epoll_.number(), EPOLL_CTL_DEL, connection.socket.number(), nullptr);
  }
  // A child process may hold a copy of the descriptor; the connection ends all the same.
  ::shutdown(connection.socket.number(), SHUT_RDWR);
  connections_.erase(number);
  ++num_left_;
  inbox_.add({.kind = FrontEvent::Kind::kLeft, .connection = number, .text = std::move(text)});
}

}  // namespace tiercel::node
