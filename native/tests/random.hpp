// The generator of every random native test: small, seeded, the same on every machine.
#pragma once

#include <cstdint>

namespace tiercel::testing {

class Random {
 public:
  explicit Random(std::uint64_t seed) noexcept : state_(seed) {}
  std::uint64_t next() noexcept {  // SplitMix64
    std::uint64_t mixed = state_ += 0x9E3779B97F4A7C15u;
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9u;
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EBu;
    return mixed ^ (mixed >> 31);
  }
  // A number in [0, bound); 0 for bound 0.
  std::uint64_t below(std::uint64_t bound) noexcept { return bound == 0 ? 0 : next() % bound; }
  bool happens(std::uint32_t per_million) noexcept { return below(1'000'000) < per_million; }

 private:
  std::uint64_t state_;
};

}  // namespace tiercel::testing
