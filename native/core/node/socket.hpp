// Owned descriptors, and datagrams over a Unix socket that is never waited for here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "node/wire.hpp"

namespace tiercel::node {

// An open descriptor, closed with its owner; -1 once moved from.
class Descriptor {
 public:
  explicit Descriptor(int number) noexcept : number_(number) {}
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept;
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor();

  int number() const noexcept { return number_; }

 private:
  int number_;
};

// Another descriptor of what `number` is. Throws std::system_error.
Descriptor duplicate(int number);

inline constexpr std::size_t kFilesMax = 64;  // of a datagram

enum class Sent : std::uint8_t { kAll, kWouldBlock, kGone };

// Send one datagram, all of it or nothing, and never wait. kGone: the peer has closed, or takes no datagram of this
// size.
Sent send_now(int socket, std::span<const Bytes> parts, std::span<const Descriptor> files = {}) noexcept;

struct Received {
  enum class State : std::uint8_t { kDatagram, kNone, kEnd, kTooLong };
  State state;
  std::size_t num_bytes;
  bool peer_left_unread;  // the peer has closed without reading all that was sent to it
};

// Receive one datagram without waiting. Descriptors that came along are closed by the kernel, never opened here.
Received receive_now(int socket, std::span<std::byte> buffer) noexcept;

// Process and user at the other end.
struct Peer {
  std::int64_t process;
  std::uint32_t user;
};
Peer peer_of(int socket) noexcept;  // user of nobody at all if the kernel does not say

}  // namespace tiercel::node
