// What the tests and the fuzzer of the node's front share: a front with its listener in a folder, and peers.
#pragma once

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "check.hpp"
#include "index/index.hpp"
#include "node/call.hpp"
#include "node/front.hpp"

namespace tiercel::testing {

inline constexpr std::size_t kNodeTokensPerBlock = 16;
inline constexpr Key kNodeRoot{{1, 2, 3}};
inline constexpr double kPatienceS = 20.0;

inline sockaddr_un address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) throw std::runtime_error("the path is too long for a socket");
  std::copy(path.begin(), path.end(), address.sun_path);
  return address;
}

inline node::Descriptor make_socket() {
  const int number = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  if (number < 0) throw std::runtime_error("no socket");
  return node::Descriptor(number);
}

inline node::Descriptor listen_at(const std::string& path) {
  node::Descriptor listener = make_socket();
  const sockaddr_un address = address_of(path);
  if (::bind(listener.number(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(listener.number(), 64) != 0) {
    throw std::runtime_error("cannot listen at " + path);
  }
  return listener;
}

inline node::Descriptor dial(const std::string& path) {
  node::Descriptor peer = make_socket();
  const sockaddr_un address = address_of(path);
  if (::connect(peer.number(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    throw std::runtime_error("cannot connect to " + path);
  }
  return peer;
}

inline std::unique_ptr<Sequence> node_sequence(std::size_t num_blocks, std::int32_t first_token = 0) {
  auto sequence = std::make_unique<Sequence>(kNodeRoot, kNodeTokensPerBlock);
  std::vector<std::int32_t> tokens(num_blocks * kNodeTokensPerBlock);
  std::iota(tokens.begin(), tokens.end(), first_token);
  sequence->extend(tokens);
  return sequence;
}

inline void store(Index& index, Sequence& sequence) {
  sequence.hash_to(sequence.num_blocks());
  Index::Lock lock(index.mutex());
  Reservation reservation = index.reserve(lock, sequence, 0, {.owner = 1});
  index.commit(lock, reservation, {});
  index.release(lock, reservation);
}

inline std::uint32_t num_pinned(Index& index) {
  Index::Lock lock(index.mutex());
  return index.stats(lock, 0).num_pinned;
}

// A front, and the part of a node that takes its events.
class FrontSample {
 public:
  explicit FrontSample(const node::FrontLimits& limits, std::uint32_t num_slots = 4096)
      : index(Index::create({.capacities = {num_slots}, .policies = {}, .evict_batch = {}})),
        path(folder_ / "node.sock"),
        listener_(listen_at(path)),
        front(listener_.number(), index, limits) {}

  std::vector<node::FrontEvent> next(double timeout_s) {
    node::NodeFront::Lock lock(front.mutex());
    return front.next(lock, timeout_s);
  }

  // Connect and be admitted for calls, behind an event connection that stays open. Other events are dropped.
  node::Descriptor join(std::uint64_t client) {
    event_connections_.push_back(join(client, false));
    return join(client, true);
  }

  node::Descriptor join(std::uint64_t client, bool calls) {
    node::Descriptor peer = dial(path);
    const std::uint64_t connection = wait_for(node::FrontEvent::Kind::kConnected).connection;
    node::NodeFront::Lock lock(front.mutex());
    front.admit(lock, connection, client, calls);
    front.allow_root(lock, client, kNodeRoot);
    return peer;
  }

  node::FrontEvent wait_for(node::FrontEvent::Kind kind) {
    for (int left = 200; left > 0; --left) {
      for (node::FrontEvent& event : next(kPatienceS / 200)) {
        if (event.kind == kind) return std::move(event);
      }
    }
    throw std::runtime_error("an event did not come");
  }

  void drop(std::uint64_t client) {
    node::NodeFront::Lock lock(front.mutex());
    const std::unique_ptr<node::ClientState> dropped = front.drop_client(lock, client);
    lock.unlock();
  }

 private:
  TemporaryFolder folder_;

 public:
  const std::shared_ptr<Index> index;
  const std::string path;

 private:
  const node::Descriptor listener_;
  std::vector<node::Descriptor> event_connections_;

 public:
  node::NodeFront front;
};

}  // namespace tiercel::testing
