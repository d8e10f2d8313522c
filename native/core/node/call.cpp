#include "node/call.hpp"

#include <poll.h>
#include <sched.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <system_error>

namespace tiercel::node {
namespace {

using Clock = std::chrono::steady_clock;

// What the node's front answers by itself comes at once and is waited for awake: to be woken takes as long as the
// answer.
constexpr std::chrono::microseconds kAwake{50};

Clock::time_point deadline_after(double timeout_s) {
  constexpr double kTimeoutMaxS = 86'400.0;
  if (!(timeout_s > 0.0)) throw std::invalid_argument("timeout_s: must be positive");
  const std::chrono::duration<double> timeout(std::min(timeout_s, kTimeoutMaxS));
  return Clock::now() + std::chrono::duration_cast<Clock::duration>(timeout);
}

std::uint32_t to_u32(std::size_t value) noexcept {
  return static_cast<std::uint32_t>(std::min<std::size_t>(value, std::numeric_limits<std::uint32_t>::max()));
}

template <typename Head>
std::array<std::byte, sizeof(Header) + sizeof(Head)> with_header(Kind kind, const Head& head) noexcept {
  std::array<std::byte, sizeof(Header) + sizeof(Head)> bytes;
  const Header header = header_of(kind);
  std::memcpy(bytes.data(), header.data(), sizeof header);
  std::memcpy(bytes.data() + sizeof header, &head, sizeof head);
  return bytes;
}

}  // namespace

NodeCall::NodeCall(int socket) : socket_(duplicate(socket)), buffer_(kDatagramBytesMax) {}

void NodeCall::close() noexcept {
  is_broken_ = true;
  ::shutdown(socket_.number(), SHUT_RDWR);  // wakes whoever waits; the descriptor goes with its owner
}

void NodeCall::check_usable() const {
  if (is_broken_) throw std::system_error(ENOTCONN, std::generic_category(), "the connection to the node is closed");
}

void NodeCall::fail(int error, const std::string& what) {
  close();
  throw std::system_error(error, std::generic_category(), what);
}

void NodeCall::wait_for(short events, Deadline deadline) {
  while (true) {
    const auto left = std::chrono::duration_cast<std::chrono::nanoseconds>(deadline - Clock::now()).count();
    if (left <= 0) fail(ETIMEDOUT, "the node did not answer in time");
    const timespec timeout{left / 1'000'000'000, left % 1'000'000'000};
    pollfd polled{socket_.number(), events, 0};
    const int num_ready = ::ppoll(&polled, 1, &timeout, nullptr);
    if (num_ready > 0) return;
    if (num_ready < 0 && errno != EINTR) fail(errno, "cannot wait for the node");
  }
}

void NodeCall::send_all(std::span<const Bytes> parts, Deadline deadline) {
  while (true) {
    switch (send_now(socket_.number(), parts)) {
      case Sent::kAll:
        return;
      case Sent::kGone:
        fail(ECONNRESET, "the node has closed the connection");
      case Sent::kWouldBlock:
        wait_for(POLLOUT, deadline);
    }
  }
}

Bytes NodeCall::receive(Deadline deadline, std::chrono::microseconds awake) {
  const Clock::time_point awake_until = Clock::now() + awake;
  while (true) {
    const Received received = receive_now(socket_.number(), buffer_);
    switch (received.state) {
      case Received::State::kDatagram:
        return Bytes(buffer_).first(received.num_bytes);
      case Received::State::kNone:
        if (Clock::now() < awake_until) {
          ::sched_yield();
        } else {
          wait_for(POLLIN, deadline);
        }
        continue;
      case Received::State::kEnd:
        fail(ECONNRESET, "the node has closed the connection");
      case Received::State::kTooLong:
        fail(EPROTO, "the node sent a datagram longer than any may be");
    }
  }
}

void NodeCall::send_piece(Sequence& sequence, Bytes head, std::size_t start, std::size_t stop, Deadline deadline) {
  constexpr std::size_t kPartsMax = 12;  // the keys of a datagram lie in fewer places than this
  std::array<Bytes, kPartsMax> parts;
  std::size_t num_parts = 0;
  parts[num_parts++] = head;
  while (start < stop) {
    const std::span<const Key> keys = sequence.stable_keys(start, stop);
    parts[num_parts++] = std::as_bytes(keys);
    start += keys.size();
  }
  send_all(std::span(parts).first(num_parts), deadline);
}

// Leaves at most `rest` blocks.
void NodeCall::send_keys_ahead(Sequence& sequence, std::uint32_t number, std::size_t& start, std::size_t stop,
                               std::size_t rest, Deadline deadline) {
  while (start + rest < stop) {
    const std::size_t end = std::min(start + kKeysMax, stop);
    const auto head = with_header(Kind::kKeys, KeysHead{number, to_u32(start)});
    send_piece(sequence, head, start, end, deadline);
    start = end;
  }
}

NodeFound NodeCall::lookup(Sequence& sequence, const LookupAsked& asked) {
  const std::size_t stop = std::min({asked.limit_blocks, sequence.num_blocks(), kSequenceBlocksMax});
  std::size_t start = std::min(asked.num_known, stop);
  const std::lock_guard lock(mutex_);
  check_usable();
  const Deadline deadline = deadline_after(asked.timeout_s);
  if (asked.num_known == 0) {  // the node wakes up while the keys are hashed
    const auto open = with_header(Kind::kOpen, OpenBody{asked.sequence, sequence.root()});
    const Bytes part = open;
    send_all({&part, 1}, deadline);
  }
  // Smaller pieces, sent while the rest is hashed, wake the node more often and save nothing.
  sequence.hash_to(std::min(stop, start + kKeysMax));
  send_keys_ahead(sequence, asked.sequence, start, stop, kKeysMax, deadline);
  const std::uint32_t request = ++last_request_;
  const LookupHead head{request, asked.sequence, to_u32(stop), to_u32(asked.engine_blocks), to_u32(start)};
  send_piece(sequence, with_header(Kind::kLookup, head), start, stop, deadline);
  NodeFound found = parse_found(body_of(receive(deadline, kAwake), Kind::kFound), request);
  if (found.state != FoundState::kUnknownSequence) found.num_known = to_u32(std::max(asked.num_known, stop));
  return found;
}

Bytes NodeCall::body_of(Bytes answer, Kind expected) {
  Kind kind{};
  Bytes body = answer;
  if (const std::string_view malformed = take_header(body, kind); !malformed.empty()) {
    fail(EPROTO, "the node answered with " + std::string(malformed));
  }
  if (kind == Kind::kMessage) {
    const std::string_view text(reinterpret_cast<const char*>(body.data()), body.size());
    fail(EPROTO, "the node refused: " + std::string(refusal_in(text)));
  }
  if (kind != expected) fail(EPROTO, "the node answered with something else");
  return body;
}

NodeFound NodeCall::parse_found(Bytes body, std::uint32_t request) {
  const std::optional<FoundHead> head = take<FoundHead>(body);
  if (!head || head->request != request ||
      body.size() != head->num_segments * sizeof(FoundSegment) + head->num_slots * sizeof(std::uint32_t)) {
    fail(EPROTO, "the node answered a lookup with something else");
  }
  NodeFound found{head->state, head->lookup, head->matched_blocks, head->num_pending, 0, {}, {}};
  found.segments.resize(head->num_segments);
  found.slots.resize(head->num_slots);
  const std::size_t segment_bytes = head->num_segments * sizeof(FoundSegment);
  if (head->num_segments != 0) std::memcpy(found.segments.data(), body.data(), segment_bytes);
  if (head->num_slots != 0) std::memcpy(found.slots.data(), body.data() + segment_bytes, body.size() - segment_bytes);
  return found;
}

bool NodeCall::end_read(const BlocksRead& read, double timeout_s) {
  const std::lock_guard lock(mutex_);
  check_usable();
  const Deadline deadline = deadline_after(timeout_s);
  const std::uint32_t request = ++last_request_;
  const auto datagram =
      with_header(Kind::kRead, ReadBody{request, read.first_block, read.num_blocks, 0, read.lookup, read.seconds});
  const Bytes part = datagram;
  send_all({&part, 1}, deadline);
  Bytes body = body_of(receive(deadline, kAwake), Kind::kHeld);
  const std::optional<HeldBody> held = take<HeldBody>(body);
  if (!held || !body.empty() || held->request != request) fail(EPROTO, "the node answered a read with something else");
  return held->held != 0;
}

std::string NodeCall::request(Bytes datagram, double timeout_s) {
  const std::lock_guard lock(mutex_);
  check_usable();
  const Deadline deadline = deadline_after(timeout_s);
  send_all({&datagram, 1}, deadline);
  const Bytes answer = receive(deadline);
  return {reinterpret_cast<const char*>(answer.data()), answer.size()};
}

void NodeCall::send(Bytes datagram, double timeout_s) {
  const std::lock_guard lock(mutex_);
  check_usable();
  send_all({&datagram, 1}, deadline_after(timeout_s));
}

void NodeCall::send_keys(Sequence& sequence, std::uint32_t number, std::size_t num_known, std::size_t stop,
                         double timeout_s) {
  if (stop > std::min(sequence.num_blocks(), kSequenceBlocksMax)) {
    throw std::invalid_argument("stop: behind the end of the sequence, or of the longest that a node takes");
  }
  const std::lock_guard lock(mutex_);
  check_usable();
  std::size_t start = std::min(num_known, stop);
  send_keys_ahead(sequence, number, start, stop, 0, deadline_after(timeout_s));
}

}  // namespace tiercel::node
