// A client's end of a connection to a node: lookups on the hot path, and calls whose messages are Python's.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "hashing/sequence.hpp"
#include "node/socket.hpp"
#include "node/wire.hpp"

namespace tiercel::node {

struct LookupAsked {
  std::uint32_t sequence;     // its number at the node
  std::size_t num_known;      // leading blocks whose keys the node has been sent; 0: it is opened first
  std::size_t limit_blocks;   // look no further; cut to what the sequence has
  std::size_t engine_blocks;  // leading blocks that the engine holds: nothing is pinned if no more are found
  double timeout_s;
};

struct NodeFound {
  FoundState state = FoundState::kOk;
  std::uint64_t lookup = 0;  // 0: nothing is pinned
  std::uint32_t matched_blocks = 0;
  std::uint32_t num_pending = 0;
  std::uint32_t num_known = 0;  // leading blocks whose keys the node has now; 0 if it has lost the sequence
  std::vector<FoundSegment> segments;
  std::vector<std::uint32_t> slots;  // of the blocks found, if they may be read without asking
};

// What was read of a lookup: `num_blocks` blocks from `first_block` of the sequence on.
struct BlocksRead {
  std::uint64_t lookup;
  std::uint32_t first_block;
  std::uint32_t num_blocks;
  double seconds;
};

// Every method throws std::system_error: ETIMEDOUT at its deadline, ECONNRESET when the node has closed the connection,
// EPROTO for an answer that is none, with the node's reason if it gave one. After any of them the connection is no
// longer usable, since an answer that comes late would be taken for the next one's. Threads: any; one call waits for
// the other, except `close`, which ends it.
class NodeCall {
 public:
  // A connected SOCK_SEQPACKET socket; a duplicate is kept.
  explicit NodeCall(int socket);
  NodeCall(const NodeCall&) = delete;
  NodeCall& operator=(const NodeCall&) = delete;

  // Hashes what the node does not know, sends it, and waits for what it finds. Of more keys than a datagram takes, the
  // first go ahead while the rest is hashed.
  NodeFound lookup(Sequence& sequence, const LookupAsked& asked);
  // Ends a lookup whose slots were read. False if they were not its own all the time: what was read is not to be used.
  bool end_read(const BlocksRead& read, double timeout_s);
  // Sends a datagram and waits for the one that answers it.
  std::string request(Bytes datagram, double timeout_s);
  void send(Bytes datagram, double timeout_s);
  // Hash and send the keys of the blocks [num_known, stop).
  void send_keys(Sequence& sequence, std::uint32_t number, std::size_t num_known, std::size_t stop, double timeout_s);
  // Idempotent.
  void close() noexcept;

 private:
  using Deadline = std::chrono::steady_clock::time_point;

  void check_usable() const;
  [[noreturn]] void fail(int error, const std::string& what);
  // Hashes blocks [start, stop) and sends them behind `head`.
  void send_piece(Sequence& sequence, Bytes head, std::size_t start, std::size_t stop, Deadline deadline);
  void send_keys_ahead(Sequence& sequence, std::uint32_t number, std::size_t& start, std::size_t stop, std::size_t rest,
                       Deadline deadline);
  void send_all(std::span<const Bytes> parts, Deadline deadline);
  Bytes receive(Deadline deadline, std::chrono::microseconds awake = {});  // valid until the next one
  void wait_for(short events, Deadline deadline);
  Bytes body_of(Bytes answer, Kind expected);
  NodeFound parse_found(Bytes body, std::uint32_t request);

  const Descriptor socket_;
  std::mutex mutex_;
  std::atomic<bool> is_broken_{false};
  std::uint32_t last_request_ = 0;
  std::vector<std::byte> buffer_;
};

}  // namespace tiercel::node
