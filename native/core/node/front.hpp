// The node's hot path: one thread that owns the listener and all connections, keeps the clients' sequences, and answers
// their lookups; everything else it hands on, in order, to whoever calls `next`.
//
//   accept ──► connected ──(admit: speaks for a client)──► KEYS, OPEN, FORGET, RELEASE, READ, LOOKUP served here
//     └ another user: closed          └ MESSAGE ──► next                      └ malformed: Refused is sent, cut
//
// Nobody is trusted: lengths, counts and numbers are checked before anything is done, and what a client may make the
// node keep is bounded: connections, clients, sequences, keys, open lookups, messages not taken (then the connection is
// not read further), answers not read (then it is cut).
//
// Threads: every method may be called from any thread at any time, with the Lock as proof; none waits, except `next`
// and `close`. Locks are taken in the order front, index.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <vector>

#include "index/index.hpp"
#include "node/client_state.hpp"
#include "node/inbox.hpp"
#include "node/socket.hpp"
#include "node/wire.hpp"

namespace tiercel::node {

struct FrontLimits {
  ClientLimits client;  // of each
  std::size_t clients = 256;
  std::size_t connections = 2048;
  std::size_t inbox_messages = 64;                  // of a connection, not taken yet
  std::size_t inbox_bytes = std::size_t{64} << 20;  // of all connections; one message more for each
  std::size_t outbox_bytes = std::size_t{4} << 20;  // of a connection, behind what the socket holds
  std::size_t looked = 4096;                        // events not taken yet
  std::uint32_t read_tier = kNoTier;  // whose slots clients are told, and may read while they hold a lookup

  static constexpr std::uint32_t kNoTier = ~std::uint32_t{0};
};

struct FrontCounts {
  std::uint64_t connections = 0;     // now
  std::uint64_t clients = 0;         // now
  std::uint64_t lookups = 0;         // since start, as all below
  std::uint64_t refused = 0;         // connections: another user's, or too many
  std::uint64_t malformed = 0;       // datagrams
  std::uint64_t overflowed = 0;      // connections cut because they did not read
  std::uint64_t looked_dropped = 0;  // events
};

struct ClientUse {
  std::size_t lookups = 0;
  std::size_t sequences = 0;
  std::size_t keys = 0;
  std::size_t outbox_bytes = 0;
};

class NodeFront {
 public:
  using Lock = std::unique_lock<std::mutex>;

  // listener: a listening SOCK_SEQPACKET socket; a duplicate is kept, and it is set to not block. Starts the thread.
  // Throws std::invalid_argument for limits that make no sense, std::system_error if the system refuses.
  NodeFront(int listener, std::shared_ptr<Index> index, const FrontLimits& limits);
  ~NodeFront() { close(); }
  NodeFront(const NodeFront&) = delete;
  NodeFront& operator=(const NodeFront&) = delete;

  std::mutex& mutex() noexcept { return mutex_; }

  // Wait for events; none after timeout_s, or when closed.
  std::vector<FrontEvent> next(Lock& lock, double timeout_s);

  // The connection speaks for the client now, and may look up if `calls`. Without, the client is a new one if it is not
  // known. Nothing happens if the connection is gone. std::invalid_argument for an unknown client, one too many, or a
  // connection that was admitted before.
  void admit(Lock& lock, std::uint64_t connection, std::uint64_t client, bool calls);
  // Nothing happens for an unknown client. std::invalid_argument for too many roots.
  void allow_root(Lock& lock, std::uint64_t client, const Key& root);
  // Send a datagram, now or as soon as the peer reads. False if the connection is gone or does not read: it is cut
  // then. Throws std::system_error if there are no descriptors left for duplicates of `files`.
  bool send(Lock& lock, std::uint64_t connection, Bytes datagram, std::span<const int> files);
  void cut(Lock& lock, std::uint64_t connection);

  std::shared_ptr<Sequence> sequence(Lock& lock, std::uint64_t client, std::uint32_t number);
  std::optional<OpenLookup> take_match(Lock& lock, std::uint64_t client, std::uint64_t lookup);
  // Put a lookup that was taken back to where it was; it is the client's again, to be released or taken. Nothing
  // happens for an unknown client.
  void return_match(Lock& lock, std::uint64_t client, std::uint64_t lookup, OpenLookup&& found);
  // Cut the client's connections and forget it. What it held is let go of when the result is destroyed, better without
  // the lock.
  std::unique_ptr<ClientState> drop_client(Lock& lock, std::uint64_t client);
  ClientUse use_of(Lock& lock, std::uint64_t client) const;
  FrontCounts counts(Lock& lock) const;

  // End the thread, close every connection and let go of everything. Idempotent. Without the lock.
  void close();

 private:
  struct Outgoing {
    std::string datagram;
    std::vector<Descriptor> files;
  };
  struct Connection {
    std::uint64_t number;
    Descriptor socket;
    ClientState* client = nullptr;  // none: not admitted
    std::uint64_t client_number = 0;
    bool calls = false;
    bool is_paused = false;  // not in the epoll set: its messages were not taken
    std::size_t num_untaken = 0;
    std::deque<Outgoing> outbox{};
    std::size_t outbox_bytes = 0;
    bool was_answered = false;        // by a FOUND, and nothing was heard since
    std::uint64_t unread_lookup = 0;  // of that FOUND
  };
  using Connections = std::unordered_map<std::uint64_t, Connection>;

  void run();
  void accept_all();
  void pause_listener();
  void resume_listener();
  void serve(std::uint64_t number, std::uint32_t flags);
  bool receive(Connection& connection);  // false: cut, or nothing more to read now
  void watch(const Connection& connection, int operation) noexcept;
  void flush(Connection& connection);
  bool post(Connection& connection, std::span<const Bytes> parts, std::span<const int> files);  // false: gone, or cut
  void end(Connection& connection, std::string_view reason);
  bool must_wait(const Connection& connection) const noexcept;
  void resume_paused();

  // front_serve.cpp: one datagram. They return why it is malformed, or "".
  std::string_view handle(Connection& connection, Bytes datagram);
  std::string_view handle_message(Connection& connection, Bytes body);
  std::string_view handle_keys(ClientState& client, Bytes body);
  std::string_view handle_lookup(Connection& connection, Bytes body);
  std::string_view handle_release(ClientState& client, Bytes body);
  std::string_view handle_read(Connection& connection, Bytes body);
  std::string_view handle_open(ClientState& client, Bytes body);
  std::string_view handle_forget(ClientState& client, Bytes body);
  std::optional<std::span<const Key>> read_keys(Bytes body);
  void find(const LookupHead& head, const std::shared_ptr<Sequence>& sequence, ClientState& client, FoundHead& found);
  void answer(Connection& connection, FoundHead& found);  // counts its segments and slots

  const FrontLimits limits_;
  const std::shared_ptr<Index> index_;
  const Descriptor listener_;
  const Descriptor epoll_;
  const Descriptor stop_;  // an eventfd

  std::mutex mutex_;
  Inbox inbox_;
  Connections connections_;
  std::unordered_map<std::uint64_t, std::unique_ptr<ClientState>> clients_;
  std::vector<std::uint64_t> paused_;
  std::size_t num_left_ = 0;  // connections whose end was not taken yet
  std::uint64_t next_connection_ = 0;
  std::uint64_t next_lookup_ = 1;
  FrontCounts counts_;
  std::vector<std::byte> buffer_;       // of the thread alone, as the three below
  std::vector<Key> keys_;               // of the datagram at hand
  std::vector<FoundSegment> segments_;  // of the answer at hand
  std::vector<Slot> slots_;             // likewise
  bool listener_paused_ = false;
  std::chrono::steady_clock::time_point awake_until_{};  // a lookup is on its way; of the thread alone
  bool is_closed_ = false;
  std::mutex closing_;
  std::thread thread_;
};

}  // namespace tiercel::node
