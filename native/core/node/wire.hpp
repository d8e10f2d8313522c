// The datagrams of the hot path, as they lie on the wire: header of four bytes, then little-endian integers and keys.
// What the other kind, a MESSAGE, holds is Python's to know; `tiercel.node.protocol` has the whole picture.
//
//   KEYS     sequence, first_block, keys                                           no answer
//   LOOKUP   request, sequence, limit_blocks, engine_blocks, first_block, keys     answered by FOUND
//   RELEASE  lookups (u64)                                                         no answer
//   OPEN     sequence, root                                                        no answer
//   FORGET   sequences                                                             no answer
//   FOUND    request, state, lookup (u64), matched_blocks, num_pending, num_segments, num_slots, segments, slots
//   READ     request, first_block, num_blocks, unused, lookup (u64), seconds (f64)         answered by HELD
//   HELD     request, whether the blocks were the lookup's all the time
//
// Slots are told where all that was found lies in the tier that clients read themselves. Who has read some of them says
// READ: that ends the lookup, as RELEASE does, and only what was HELD was read.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "key.hpp"

namespace tiercel::node {

static_assert(std::endian::native == std::endian::little, "integers go over the wire as they lie in memory");

using Bytes = std::span<const std::byte>;

enum class Kind : std::uint8_t {
  kMessage = 0x01,
  kKeys = 0x10,
  kLookup = 0x11,
  kRelease = 0x12,
  kOpen = 0x13,
  kForget = 0x14,
  kRead = 0x15,
  kFound = 0x91,
  kHeld = 0x92,
};

enum class FoundState : std::uint32_t {
  kOk = 0,
  kUnknownSequence = 1,  // or one with a gap: open it and send all keys again
  kTooManyLookups = 2,
};

inline constexpr std::uint8_t kProtocolVersion = 2;
inline constexpr std::size_t kKeysMax = 4096;                            // of one datagram
inline constexpr std::size_t kSequenceBlocksMax = std::size_t{1} << 16;  // of one sequence
inline constexpr std::size_t kSegmentsMax = 1024;                        // of one FOUND
inline constexpr std::size_t kSlotsMax = 1 << 14;                        // likewise
inline constexpr std::size_t kDatagramBytesMax = std::size_t{128} << 10;

using Header = std::array<std::uint8_t, 4>;
constexpr Header header_of(Kind kind) noexcept { return {'T', 'N', kProtocolVersion, static_cast<std::uint8_t>(kind)}; }

struct KeysHead {
  std::uint32_t sequence;
  std::uint32_t first_block;
};

struct LookupHead {
  std::uint32_t request;
  std::uint32_t sequence;
  std::uint32_t limit_blocks;
  std::uint32_t engine_blocks;
  std::uint32_t first_block;
};

struct OpenBody {
  std::uint32_t sequence;
  Key root;
};

struct FoundHead {
  std::uint32_t request;
  FoundState state;
  std::uint64_t lookup;
  std::uint32_t matched_blocks;
  std::uint32_t num_pending;
  std::uint32_t num_segments;
  std::uint32_t num_slots;
};

struct FoundSegment {
  std::uint32_t tier;
  std::uint32_t first_block;
  std::uint32_t num_blocks;
};

struct ReadBody {
  std::uint32_t request;
  std::uint32_t first_block;
  std::uint32_t num_blocks;
  std::uint32_t unused;
  std::uint64_t lookup;
  double seconds;
};

struct HeldBody {
  std::uint32_t request;
  std::uint32_t held;
};

static_assert(sizeof(KeysHead) == 8 && sizeof(LookupHead) == 20 && sizeof(OpenBody) == 20);
static_assert(sizeof(FoundHead) == 32 && sizeof(FoundSegment) == 12);
static_assert(sizeof(ReadBody) == 32 && sizeof(HeldBody) == 8);

// Take a `Value` off the front; none, and nothing taken, if there are too few bytes.
template <typename Value>
std::optional<Value> take(Bytes& bytes) noexcept {
  if (bytes.size() < sizeof(Value)) return std::nullopt;
  Value value;
  std::memcpy(&value, bytes.data(), sizeof value);
  bytes = bytes.subspan(sizeof value);
  return value;
}

// How many of a `Value` the bytes are; none if they are no whole number of them.
template <typename Value>
std::optional<std::size_t> count(Bytes bytes) noexcept {
  if (bytes.size() % sizeof(Value) != 0) return std::nullopt;
  return bytes.size() / sizeof(Value);
}

// Why these bytes begin no datagram of this protocol, or "". On success they are the body.
inline std::string_view take_header(Bytes& bytes, Kind& kind) noexcept {
  const std::optional<Header> header = take<Header>(bytes);
  if (!header || (*header)[0] != 'T' || (*header)[1] != 'N') return "not a datagram of this protocol";
  if ((*header)[2] != kProtocolVersion) return "a datagram of another version of the protocol: run the same release";
  kind = static_cast<Kind>((*header)[3]);
  return "";
}

// The datagram of a `Refused` message (`tiercel.node.joining`): MessagePack of ["Refused", reason].
inline std::string refused_datagram(std::string_view reason) {
  constexpr std::size_t kReasonMax = 200;
  reason = reason.substr(0, kReasonMax);
  const Header header = header_of(Kind::kMessage);
  std::string bytes(header.begin(), header.end());
  bytes += "\x92\xa7Refused\xd9";  // an array of two; a string of seven; a string of less than 256
  bytes += static_cast<char>(reason.size());
  bytes += reason;
  return bytes;
}

// The reason in such a message's body, or what can be said instead.
inline std::string_view refusal_in(std::string_view body) noexcept {
  constexpr std::size_t kReasonAt = 11;
  return body.starts_with("\x92\xa7Refused") && body.size() > kReasonAt ? body.substr(kReasonAt) : "no reason given";
}

}  // namespace tiercel::node
