// NodeFront: what each datagram does.
#include <time.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <exception>
#include <utility>

#include "node/front.hpp"

namespace tiercel::node {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_of(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

template <typename Value>
Bytes bytes_of(const Value& value) noexcept {
  return std::as_bytes(std::span(&value, 1));
}

// A sequence is opened just before its lookup's keys are hashed: 16K tokens take a third of this, and waking up as long
// again.
constexpr std::chrono::microseconds kAwake{250};

constexpr double kReadSecondsMax = 86'400.0;

std::string_view why(ClientState::Appended appended) noexcept {
  return appended == ClientState::Appended::kTooLong ? "a sequence of more than 65536 blocks" : "";
}

}  // namespace

std::string_view NodeFront::handle(Connection& connection, Bytes datagram) try {
  Kind kind{};
  Bytes body = datagram;
  if (const std::string_view malformed = take_header(body, kind); !malformed.empty()) return malformed;
  if (kind == Kind::kMessage) return handle_message(connection, body);
  if (connection.client == nullptr) return "a datagram before the connection was admitted";
  switch (kind) {
    case Kind::kKeys:
      return handle_keys(*connection.client, body);
    case Kind::kLookup:
      awake_until_ = {};
      return handle_lookup(connection, body);
    case Kind::kRelease:
      return handle_release(*connection.client, body);
    case Kind::kRead:
      return handle_read(connection, body);
    case Kind::kOpen:
      awake_until_ = std::chrono::steady_clock::now() + kAwake;
      return handle_open(*connection.client, body);
    case Kind::kForget:
      return handle_forget(*connection.client, body);
    default:
      return "a datagram of a kind that no client sends";
  }
} catch (const std::bad_alloc&) {
  return "the node has no memory left for this";
}

std::string_view NodeFront::handle_message(Connection& connection, Bytes body) {
  if (body.empty()) return "a message without a body";
  ++connection.num_untaken;
  inbox_.add({.kind = FrontEvent::Kind::kMessage,
              .connection = connection.number,
              .text = {reinterpret_cast<const char*>(body.data()), body.size()}});
  return "";
}

// Copies them out of the datagram; none if they are no whole number, or too many.
std::optional<std::span<const Key>> NodeFront::read_keys(Bytes body) {
  const std::optional<std::size_t> num_keys = count<Key>(body);
  if (!num_keys || *num_keys > kKeysMax) return std::nullopt;
  if (*num_keys != 0) std::memcpy(keys_.data(), body.data(), body.size());
  return std::span<const Key>(keys_).first(*num_keys);
}

std::string_view NodeFront::handle_keys(ClientState& client, Bytes body) {
  const std::optional<KeysHead> head = take<KeysHead>(body);
  if (!head) return "KEYS without its head";
  const auto keys = read_keys(body);
  if (!keys) return "KEYS with a part of a key, or too many";
  // A gap may be the client's other connections' doing: the lookup that follows will say so.
  return why(client.append(head->sequence, head->first_block, *keys));
}

std::string_view NodeFront::handle_lookup(Connection& connection, Bytes body) {
  if (!connection.calls) return "LOOKUP on a connection that is not for calls";
  const Clock::time_point started = Clock::now();
  const std::optional<LookupHead> head = take<LookupHead>(body);
  if (!head) return "LOOKUP without its head";
  const auto keys = read_keys(body);
  if (!keys) return "LOOKUP with a part of a key, or too many";
  ClientState& client = *connection.client;
  FoundHead found{head->request, FoundState::kOk, 0, 0, 0, 0, 0};
  segments_.clear();
  slots_.clear();
  const ClientState::Appended appended = client.append(head->sequence, head->first_block, *keys);
  if (appended == ClientState::Appended::kTooLong) return why(appended);
  if (appended != ClientState::Appended::kDone) {
    found.state = FoundState::kUnknownSequence;
    answer(connection, found);
    return "";
  }
  if (!client.may_look_up()) {
    found.state = FoundState::kTooManyLookups;
    answer(connection, found);
    return "";
  }
  std::shared_ptr<Sequence> sequence = client.find(head->sequence);
  find(*head, sequence, client, found);
  std::vector<FoundSegment> segments = segments_;
  const std::uint64_t client_number = connection.client_number;
  answer(connection, found);
  ++counts_.lookups;
  const bool taken = inbox_.add_looked({.kind = FrontEvent::Kind::kLooked,
                                        .client = client_number,
                                        .seconds = seconds_of(Clock::now() - started),
                                        .sequence = std::move(sequence),
                                        .limit_blocks = head->limit_blocks,
                                        .matched_blocks = found.matched_blocks,
                                        .num_pending = found.num_pending,
                                        .segments = std::move(segments)});
  if (!taken) ++counts_.looked_dropped;
  return "";
}

// Fills `found` and segments_, and holds the pins if there is anything to load.
void NodeFront::find(const LookupHead& head, const std::shared_ptr<Sequence>& sequence, ClientState& client,
                     FoundHead& found) {
  const double now_s = seconds_of(Clock::now().time_since_epoch());
  Index::Lock lock(index_->mutex());
  Match match = index_->match(lock, *sequence, head.limit_blocks, true, now_s);
  found.num_pending = match.num_pending();
  if (match.segments().size() > kSegmentsMax) {
    index_->truncate(lock, match, match.segments()[kSegmentsMax].first_block);
    found.num_pending = 0;
  }
  lock.unlock();
  found.matched_blocks = static_cast<std::uint32_t>(match.slots().size());
  for (const Segment& segment : match.segments()) {
    segments_.push_back({segment.tier, segment.first_block, segment.num_blocks});
  }
  if (found.matched_blocks <= head.engine_blocks) return;  // nothing that the engine lacks
  found.lookup = next_lookup_++;
  if (segments_.size() == 1 && segments_[0].tier == limits_.read_tier && match.slots().size() <= kSlotsMax) {
    slots_ = match.slots();
  }
  client.hold(found.lookup, {std::move(match), sequence});
}

// The connection may be gone afterwards.
void NodeFront::answer(Connection& connection, FoundHead& found) {
  const Header header = header_of(Kind::kFound);
  found.num_segments = static_cast<std::uint32_t>(segments_.size());
  found.num_slots = static_cast<std::uint32_t>(slots_.size());
  const std::array<Bytes, 4> parts{bytes_of(header), bytes_of(found), std::as_bytes(std::span(segments_)),
                                   std::as_bytes(std::span(slots_))};
  connection.was_answered = true;
  connection.unread_lookup = found.lookup;
  ClientState& client = *connection.client;
  if (!post(connection, parts, {})) client.release(found.lookup);
}

std::string_view NodeFront::handle_release(ClientState& client, Bytes body) {
  const std::optional<std::size_t> num_lookups = count<std::uint64_t>(body);
  if (!num_lookups) return "RELEASE with a part of a number";
  while (const std::optional<std::uint64_t> lookup = take<std::uint64_t>(body)) client.release(*lookup);
  return "";
}

std::string_view NodeFront::handle_read(Connection& connection, Bytes body) {
  if (!connection.calls) return "READ on a connection that is not for calls";
  const std::optional<ReadBody> read = take<ReadBody>(body);
  if (!read || !body.empty()) return "READ of another length";
  if (!(read->seconds >= 0.0 && read->seconds <= kReadSecondsMax)) return "READ that took no time that there is";
  const std::optional<OpenLookup> found = connection.client->take(read->lookup);
  HeldBody held{read->request, 0};
  if (found) {
    if (std::uint64_t{read->first_block} + read->num_blocks > found->match.slots().size()) {
      return "READ of blocks that the lookup did not find";
    }
    Index::Lock lock(index_->mutex());
    held.held = found->match.generation() == index_->generation(lock);
  }
  const std::uint64_t client_number = connection.client_number;
  const Header header = header_of(Kind::kHeld);
  const std::array<Bytes, 2> parts{bytes_of(header), bytes_of(held)};
  post(connection, parts, {});  // the connection may be gone afterwards
  if (held.held == 0) return "";
  const bool taken = inbox_.add_looked({.kind = FrontEvent::Kind::kRead,
                                        .client = client_number,
                                        .seconds = read->seconds,
                                        .sequence = found->sequence,
                                        .first_block = read->first_block,
                                        .num_blocks = read->num_blocks});
  if (!taken) ++counts_.looked_dropped;
  return "";
}

std::string_view NodeFront::handle_open(ClientState& client, Bytes body) {
  const std::optional<OpenBody> open = take<OpenBody>(body);
  if (!open || !body.empty()) return "OPEN of another length";
  return client.open(open->sequence, open->root) ? "" : "OPEN of a root that this client was not given";
}

std::string_view NodeFront::handle_forget(ClientState& client, Bytes body) {
  const std::optional<std::size_t> num_sequences = count<std::uint32_t>(body);
  if (!num_sequences) return "FORGET with a part of a number";
  while (const std::optional<std::uint32_t> number = take<std::uint32_t>(body)) client.forget(*number);
  return "";
}

}  // namespace tiercel::node
