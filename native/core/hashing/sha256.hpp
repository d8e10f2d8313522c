// SHA-256 (FIPS 180-4), by the SHA extensions of x86-64 where the processor has them, else in portable C++.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace tiercel {

enum class Sha256Path { kPortable, kShaNi };

// The fastest path that this processor can run.
Sha256Path fastest_sha256_path() noexcept;

// Not thread-safe. `finish` may be called once.
class Sha256 {
 public:
  using Digest = std::array<std::uint8_t, 32>;

  explicit Sha256(Sha256Path path = fastest_sha256_path()) noexcept : path_(path) {}

  void update(std::span<const std::byte> data) noexcept;
  Digest finish() noexcept;

 private:
  static constexpr std::size_t kBlockBytes = 64;

  void compress(const std::byte* blocks, std::size_t num_blocks) noexcept;

  Sha256Path path_;
  std::array<std::uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::byte, kBlockBytes> partial_{};
  std::size_t num_partial_ = 0;
  std::uint64_t num_bytes_ = 0;
};

}  // namespace tiercel
