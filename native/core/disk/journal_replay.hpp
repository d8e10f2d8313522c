// What a journal directory says, without changing it. Used by Journal::recover and by tools that look at a cache.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "journal_format.hpp"

namespace tiercel::disk {

struct Replay {
  std::vector<Mapping> mappings;         // least recently written first; each slot at most once
  std::uint64_t torn_bytes = 0;          // behind the last good record of the last segment
  std::uint64_t num_corrupt = 0;         // places where records are missing or unreadable
  std::uint64_t num_out_of_range = 0;    // mappings to slots that do not exist any more
  std::uint64_t segment_bytes = 0;       // of all segments that were replayed
  std::vector<std::uint64_t> segments;   // their numbers, ascending
  std::uint64_t last_segment_bytes = 0;  // good bytes of the last one
  std::uint64_t next_number = 0;         // larger than that of any file present
  std::uint64_t next_sequence = 0;       // larger than that of any record present
};

// Reads the newest checkpoint and the segments behind it. Mappings to slots >= num_slots are left out.
// Damaged parts are stepped over and counted; what that may lose is a mapping, or the end of one. Throws FileError.
Replay replay_journal(const std::string& directory, std::uint32_t num_slots);

// The journal's files by number, ascending.
struct JournalFiles {
  std::vector<std::uint64_t> segments;
  std::vector<std::uint64_t> checkpoints;
};
JournalFiles list_journal_files(const std::string& directory);

}  // namespace tiercel::disk
