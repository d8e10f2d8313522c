// Fixed-size slots in preallocated files, one file per directory, striped by slot.
//
// BlockFiles knows where a slot lies, merges neighbours into one vectored request, and computes the checksum of every
// block around its transfer. Which slots hold what is the caller's business, and so is keeping two calls that touch the
// same slot apart.
//
// A transfer always moves whole slots (slot_bytes), so that direct I/O stays aligned whatever the block's size; only
// the block's own bytes (block_bytes) enter the checksum. Memory of a block is therefore slot_bytes long and
// page-aligned.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "file.hpp"
#include "io_engine.hpp"

namespace tiercel::disk {

enum class EngineChoice : std::uint8_t { kAuto, kUring, kThreads };

struct BlockFilesOptions {
  std::vector<std::string> paths;  // slot s lies in paths[s % n] at (s / n) * slot_bytes
  std::uint32_t num_slots = 0;
  std::uint64_t block_bytes = 0;
  std::uint64_t slot_bytes = 0;                      // block_bytes rounded up to whole pages, or more
  std::uint32_t queue_depth = 0;                     // requests in flight per call, 1 to 32768
  std::uint64_t write_bytes_beside_reads = 1 << 20;  // in flight per write call while a read runs; one request at least
  EngineChoice engine = EngineChoice::kAuto;
  bool direct = true;  // ask for O_DIRECT
};

// The outcome of a read whose bytes arrived and are not the ones that were written. Beside it: 0 and errno values.
inline constexpr std::int32_t kChecksumMismatch = -1;

inline constexpr std::uint64_t kPageBytes = 4096;

class BlockFiles {
 public:
  // Opens or creates the files and allocates their space; files of another size are grown, keeping their content, or
  // cut. Throws FileError, and std::invalid_argument for options out of range.
  explicit BlockFiles(BlockFilesOptions options);

  // Writes one block to each slot. `seeds` enter the checksums and tie each block to its identity.
  // errors[i]: 0 or an errno. checksums[i]: of the block as it was when its write began.
  // seconds[i], here and below: from the block's turn in the queue to its outcome; empty if nobody wants to know.
  void write(std::span<const std::uint32_t> slots, std::span<const std::uint64_t> addresses,
             std::span<const std::uint64_t> seeds, std::span<std::int32_t> errors, std::span<std::uint64_t> checksums,
             std::span<double> seconds = {});

  // Reads one block from each slot and verifies it. errors[i]: 0, an errno, or kChecksumMismatch.
  void read(std::span<const std::uint32_t> slots, std::span<const std::uint64_t> addresses,
            std::span<const std::uint64_t> seeds, std::span<const std::uint64_t> checksums,
            std::span<std::int32_t> errors, std::span<double> seconds = {});

  // Memory that many blocks will be read into and written from: registered with io_uring piece by piece as it is used,
  // which saves the kernel from pinning its pages for every request. It must stay mapped until it is forgotten or this
  // object is gone. Both wait for the calls under way. Any other memory serves as well, with more CPU.
  void use_memory(const IoMemory& memory);
  void forget_memory(std::uint64_t address);

  // Makes every block written so far survive the machine's failure. Throws FileError.
  void sync() const;

  bool uses_uring() const noexcept { return uses_uring_; }
  bool direct() const noexcept { return direct_; }
  // Why io_uring, O_DIRECT or preallocation is not in use although it was asked for; empty if it is.
  const std::string& engine_reason() const noexcept { return engine_reason_; }
  const std::string& direct_reason() const noexcept { return direct_reason_; }
  const std::string& allocation_reason() const noexcept { return allocation_reason_; }
  // Why memory in use is not registered although the engine could; it may come later than the memory.
  std::string memory_reason() const { return engine_->memory_reason(); }
  // Pinned for this object now.
  std::uint64_t registered_bytes() const { return engine_->registered_bytes(); }

 private:
  class Batch;

  void open_files();
  void choose_engine();
  void check(std::span<const std::uint32_t> slots, std::span<const std::uint64_t> addresses) const;

  BlockFilesOptions options_;
  std::vector<File> files_;
  std::unique_ptr<IoEngine> engine_;
  bool uses_uring_ = false;
  bool direct_ = false;
  std::string engine_reason_;
  std::string direct_reason_;
  std::string allocation_reason_;
};

}  // namespace tiercel::disk
