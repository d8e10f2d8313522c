// The journal's files, byte by byte. Little endian, no padding; everything is a multiple of 4 bytes.
//
//   journal-<n>.log, checkpoint-<n>   a directory holds any number of segments and usually one checkpoint;
//                                     checkpoint n stands for everything before segment n
//   file   := record*                 sequence numbers grow by one from record to record and from segment to segment;
//                                     a checkpoint counts its own from 0
//   record := magic u32 | header hash u32 | type u32 | payload bytes u32 | sequence u64 | payload hash u64 | payload
//   PUT    := parent 16 | (key 16, slot u32, checksum u64)*      consecutive blocks; each is the next one's parent
//   FREE   := slot u32*
//   ENTRIES:= (parent 16, key 16, slot u32, checksum u64)*       in checkpoints
//   END    := number of entries u64                              last record of a complete checkpoint
//
// Hashes are XXH3 seeded with the file's number, so a record is good only in the file that it was written to.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace tiercel::disk {

static_assert(std::endian::native == std::endian::little, "the journal's format is that of little-endian machines");

inline constexpr std::size_t kKeyBytes = 16;
using KeyBytes = std::array<std::byte, kKeyBytes>;

// One block, where it lies and what its bytes hash to.
struct Mapping {
  KeyBytes parent;
  KeyBytes key;
  std::uint32_t slot;
  std::uint64_t checksum;
};

enum class RecordType : std::uint32_t { kPut = 1, kFree = 2, kEntries = 3, kEnd = 4 };

inline constexpr std::uint32_t kRecordMagic = 0x4C4E524A;
inline constexpr std::size_t kHeaderBytes = 32;
inline constexpr std::size_t kPayloadBytesMax = 1 << 20;
inline constexpr std::size_t kPutEntryBytes = kKeyBytes + 12;
inline constexpr std::size_t kEntryBytes = 2 * kKeyBytes + 12;

struct RecordHeader {
  RecordType type;
  std::uint32_t payload_bytes;
  std::uint64_t sequence;
  std::uint64_t payload_hash;
};

// A header if the bytes are one of file `number` and name a payload length that its type allows.
std::optional<RecordHeader> decode_header(std::span<const std::byte, kHeaderBytes> bytes, std::uint64_t number);
bool payload_matches(const RecordHeader& header, std::span<const std::byte> payload, std::uint64_t number);

// Builds records one after the other in one buffer, ready for one write.
class RecordWriter {
 public:
  RecordWriter(std::uint64_t number, std::uint64_t next_sequence) : number_(number), next_sequence_(next_sequence) {}
  void put(const KeyBytes& parent, std::span<const KeyBytes> keys, std::span<const std::uint32_t> slots,
           std::span<const std::uint64_t> checksums);
  void free(std::span<const std::uint32_t> slots);
  void entries(std::span<const Mapping> mappings);
  void end(std::uint64_t num_entries);
  std::span<const std::byte> bytes() const noexcept { return buffer_; }
  std::uint64_t next_sequence() const noexcept { return next_sequence_; }
  void clear() noexcept { buffer_.clear(); }

 private:
  void begin(std::size_t payload_bytes);
  void finish(RecordType type);
  template <typename T>
  void append(const T& value) {
    const auto* raw = reinterpret_cast<const std::byte*>(&value);
    buffer_.insert(buffer_.end(), raw, raw + sizeof(T));
  }

  std::uint64_t number_;
  std::uint64_t next_sequence_;
  std::size_t record_start_ = 0;
  std::vector<std::byte> buffer_;
};

template <typename T>
T load(const std::byte* source) noexcept {
  T value;
  std::memcpy(&value, source, sizeof(T));
  return value;
}

std::string segment_name(std::uint64_t number);
std::string checkpoint_name(std::uint64_t number);

}  // namespace tiercel::disk
