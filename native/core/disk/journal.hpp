// An append-only record of which key lies in which slot, with checkpoints, that survives the death of its process.
//
// Appends are plain writes: the kernel keeps them when the process is killed; `sync` makes them survive the machine
// too.
//
// What recovery trusts. Every record carries its own hash. A torn tail is cut; a damaged record in the middle is
// stepped over, and what follows is used. So a recovered mapping was once true, and may be stale: the PUT or FREE that
// ended it may have been in the damage. That is safe because a mapping is never trusted against the data. The block's
// checksum is seeded with its key and verified by every read, so a stale mapping to a slot that was written since reads
// as corrupt, and a stale mapping to a slot that was only freed still names the very bytes that were stored under its
// key. Emptying a cache must not rest on FREE records for this reason: write an empty checkpoint, which removes every
// older file.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>

#include "file.hpp"
#include "journal_format.hpp"
#include "journal_replay.hpp"

namespace tiercel::disk {

// Thread-safe; one Journal per directory, which the caller ensures with a lock. After a failed append the journal is as
// it was before it, and usable.
class Journal {
 public:
  // Opens nothing yet. Slots of recovered mappings are smaller than num_slots. Throws FileError without a directory.
  Journal(std::string directory, std::uint32_t num_slots);

  // Replays what is there and cuts a torn tail. Once, before anything else; throws std::logic_error otherwise.
  Replay recover();

  // Record that consecutive blocks were written, the first of them after `parent`. Throws FileError.
  void put(const KeyBytes& parent, std::span<const KeyBytes> keys, std::span<const std::uint32_t> slots,
           std::span<const std::uint64_t> checksums);
  // Record that slots are void. Throws FileError.
  void free(std::span<const std::uint32_t> slots);

  // Start a new segment: what is appended from now on is replayed after the coming checkpoint.
  void begin_checkpoint();
  // Durably replace everything before the segment that begin_checkpoint started. On failure (FileError) the old files
  // stay and still count; begin again.
  void write_checkpoint(std::span<const Mapping> mappings);

  // Bytes of all segments since the last checkpoint, recovered ones included.
  std::uint64_t appended_bytes() const noexcept { return appended_bytes_.load(std::memory_order_relaxed); }
  std::uint64_t num_segments() const noexcept { return num_segments_.load(std::memory_order_relaxed); }

  // Makes everything appended so far durable. Throws FileError.
  void sync();

 private:
  void append(RecordWriter&& writer);
  void open_segment();
  RecordWriter writer() const { return {number_, next_sequence_}; }
  void check_recovered() const;
  void remove_before(std::uint64_t number) const;

  const std::string directory_;
  const std::uint32_t num_slots_;
  mutable std::mutex mutex_;
  std::mutex checkpoint_mutex_;
  bool recovered_ = false;
  std::shared_ptr<const File> segment_;  // null until the first append after a start or a rotation
  std::uint64_t number_ = 0;             // of the segment that is open or will be opened next
  std::uint64_t segment_bytes_ = 0;
  std::uint64_t next_sequence_ = 0;
  std::optional<std::uint64_t> checkpoint_number_;
  std::uint64_t bytes_before_checkpoint_ = 0;
  std::uint64_t segments_before_checkpoint_ = 0;
  std::atomic<std::uint64_t> appended_bytes_ = 0;
  std::atomic<std::uint64_t> num_segments_ = 0;
};

}  // namespace tiercel::disk
