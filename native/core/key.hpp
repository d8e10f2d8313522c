// The 128-bit name of a block. Equal keys mean equal prefixes; the index, the tiers and the journal all speak in them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace tiercel {

struct Key {
  static constexpr std::size_t kNumBytes = 16;

  std::array<std::uint8_t, kNumBytes> bytes;

  friend bool operator==(const Key& left, const Key& right) noexcept {
    return std::memcmp(left.bytes.data(), right.bytes.data(), kNumBytes) == 0;
  }

  // Keys come out of a cryptographic hash, so any eight of their bytes spread well over a table.
  std::uint64_t hash64() const noexcept {
    std::uint64_t value;
    std::memcpy(&value, bytes.data(), sizeof value);
    return value;
  }
};

static_assert(sizeof(Key) == Key::kNumBytes);

struct KeyHash {
  std::size_t operator()(const Key& key) const noexcept { return key.hash64(); }
};

}  // namespace tiercel
