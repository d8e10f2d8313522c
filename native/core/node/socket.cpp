#include "node/socket.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <limits>
#include <system_error>

namespace tiercel::node {
namespace {

constexpr std::size_t kPartsMax = 16;

bool would_block(int error) noexcept { return error == EAGAIN || error == EWOULDBLOCK || error == ENOBUFS; }

}  // namespace

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  std::swap(number_, other.number_);
  return *this;
}

Descriptor::~Descriptor() {
  if (number_ >= 0) ::close(number_);
}

Descriptor duplicate(int number) {
  const int copy = ::fcntl(number, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) throw std::system_error(errno, std::generic_category(), "cannot duplicate a descriptor");
  return Descriptor(copy);
}

Sent send_now(int socket, std::span<const Bytes> parts, std::span<const Descriptor> files) noexcept {
  if (parts.size() > kPartsMax || files.size() > kFilesMax) return Sent::kGone;
  std::array<iovec, kPartsMax> vectors;
  std::transform(parts.begin(), parts.end(), vectors.begin(), [](Bytes part) {
    return iovec{const_cast<std::byte*>(part.data()), part.size()};  // sendmsg only reads
  });
  msghdr message{};
  message.msg_iov = vectors.data();
  message.msg_iovlen = parts.size();
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(kFilesMax * sizeof(int))> control{};
  if (!files.empty()) {
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(files.size() * sizeof(int));
    cmsghdr* head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(files.size() * sizeof(int));
    std::byte* place = reinterpret_cast<std::byte*>(CMSG_DATA(head));
    for (const Descriptor& file : files) {
      const int number = file.number();
      std::memcpy(place, &number, sizeof number);
      place += sizeof number;
    }
  }
  while (::sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
    if (would_block(errno)) return Sent::kWouldBlock;
    if (errno != EINTR) return Sent::kGone;
  }
  return Sent::kAll;
}

Received receive_now(int socket, std::span<std::byte> buffer) noexcept {
  bool left_unread = false;
  while (true) {
    // Without room for control data the kernel drops descriptors. MSG_TRUNC tells the length of what did not fit.
    const ssize_t length = ::recv(socket, buffer.data(), buffer.size(), MSG_DONTWAIT | MSG_TRUNC);
    if (length > 0) {
      const auto num_bytes = static_cast<std::size_t>(length);
      const bool fits = num_bytes <= buffer.size();
      return {fits ? Received::State::kDatagram : Received::State::kTooLong, fits ? num_bytes : 0, left_unread};
    }
    if (length == 0) return {Received::State::kEnd, 0, left_unread};
    if (errno == EINTR) continue;
    if (errno == ECONNRESET && !left_unread) {
      left_unread = true;  // said once; what the peer sent before is still there
      continue;
    }
    return {would_block(errno) ? Received::State::kNone : Received::State::kEnd, 0, left_unread};
  }
}

Peer peer_of(int socket) noexcept {
  ucred credentials{};
  socklen_t length = sizeof credentials;
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) {
    return {0, std::numeric_limits<std::uint32_t>::max()};
  }
  return {credentials.pid, credentials.uid};
}

}  // namespace tiercel::node
