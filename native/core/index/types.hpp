// The words that the files of the index share: run and slot numbers and the flag of a block that is being written.
#pragma once

#include <cstdint>
#include <limits>

namespace tiercel {

using RunId = std::uint32_t;
using RunLink = std::uint32_t;  // a run's number + 1; 0: none, so that zeroed memory is valid
using Slot = std::uint32_t;

inline constexpr RunId kNoRun = std::numeric_limits<RunId>::max();

// A run's entry for a block in a tier: the slot, and in the top bit whether the block is still being written.
inline constexpr Slot kWritingBit = Slot{1} << 31;
inline constexpr Slot kSlotMask = kWritingBit - 1;
inline constexpr std::uint32_t kNumSlotsMax = kWritingBit - 1;

inline constexpr bool is_writing(Slot entry) noexcept { return (entry & kWritingBit) != 0; }

}  // namespace tiercel
