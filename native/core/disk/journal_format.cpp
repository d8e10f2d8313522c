#include "journal_format.hpp"

#include <algorithm>

#include "memory/checksum.hpp"

namespace tiercel::disk {
namespace {

bool is_length_of(RecordType type, std::size_t bytes) {
  if (bytes > kPayloadBytesMax) return false;
  switch (type) {
    case RecordType::kPut:
      return bytes > kKeyBytes && (bytes - kKeyBytes) % kPutEntryBytes == 0;
    case RecordType::kFree:
      return bytes > 0 && bytes % sizeof(std::uint32_t) == 0;
    case RecordType::kEntries:
      return bytes > 0 && bytes % kEntryBytes == 0;
    case RecordType::kEnd:
      return bytes == sizeof(std::uint64_t);
  }
  return false;
}

std::uint32_t header_hash(const std::byte* header, std::uint64_t number) {
  return static_cast<std::uint32_t>(checksum({header + 8, kHeaderBytes - 8}, number));
}

template <typename T>
void store(std::byte* target, T value) noexcept {
  std::memcpy(target, &value, sizeof(T));
}

}  // namespace

std::optional<RecordHeader> decode_header(std::span<const std::byte, kHeaderBytes> bytes, std::uint64_t number) {
  const std::byte* raw = bytes.data();
  if (load<std::uint32_t>(raw) != kRecordMagic) return std::nullopt;
  if (load<std::uint32_t>(raw + 4) != header_hash(raw, number)) return std::nullopt;
  const RecordHeader header{static_cast<RecordType>(load<std::uint32_t>(raw + 8)), load<std::uint32_t>(raw + 12),
                            load<std::uint64_t>(raw + 16), load<std::uint64_t>(raw + 24)};
  if (!is_length_of(header.type, header.payload_bytes)) return std::nullopt;
  return header;
}

bool payload_matches(const RecordHeader& header, std::span<const std::byte> payload, std::uint64_t number) {
  return checksum(payload, number) == header.payload_hash;
}

void RecordWriter::begin(std::size_t payload_bytes) {
  record_start_ = buffer_.size();
  buffer_.reserve(record_start_ + kHeaderBytes + payload_bytes);
  buffer_.resize(record_start_ + kHeaderBytes);
}

void RecordWriter::finish(RecordType type) {
  std::byte* header = buffer_.data() + record_start_;
  const std::span<const std::byte> payload = std::span(buffer_).subspan(record_start_ + kHeaderBytes);
  store(header, kRecordMagic);
  store(header + 8, static_cast<std::uint32_t>(type));
  store(header + 12, static_cast<std::uint32_t>(payload.size()));
  store(header + 16, next_sequence_++);
  store(header + 24, checksum(payload, number_));
  store(header + 4, header_hash(header, number_));
}

void RecordWriter::put(const KeyBytes& parent, std::span<const KeyBytes> keys, std::span<const std::uint32_t> slots,
                       std::span<const std::uint64_t> checksums) {
  constexpr std::size_t kBlocksMax = (kPayloadBytesMax - kKeyBytes) / kPutEntryBytes;
  for (std::size_t start = 0; start < keys.size(); start += kBlocksMax) {
    const std::size_t stop = std::min(keys.size(), start + kBlocksMax);
    begin(kKeyBytes + (stop - start) * kPutEntryBytes);
    append(start == 0 ? parent : keys[start - 1]);
    for (std::size_t i = start; i < stop; ++i) {
      append(keys[i]);
      append(slots[i]);
      append(checksums[i]);
    }
    finish(RecordType::kPut);
  }
}

void RecordWriter::free(std::span<const std::uint32_t> slots) {
  constexpr std::size_t kSlotsMax = kPayloadBytesMax / sizeof(std::uint32_t);
  for (std::size_t start = 0; start < slots.size(); start += kSlotsMax) {
    const auto part = slots.subspan(start, std::min(kSlotsMax, slots.size() - start));
    begin(part.size_bytes());
    for (const std::uint32_t slot : part) append(slot);
    finish(RecordType::kFree);
  }
}

void RecordWriter::entries(std::span<const Mapping> mappings) {
  begin(mappings.size() * kEntryBytes);
  for (const Mapping& mapping : mappings) {
    append(mapping.parent);
    append(mapping.key);
    append(mapping.slot);
    append(mapping.checksum);
  }
  finish(RecordType::kEntries);
}

void RecordWriter::end(std::uint64_t num_entries) {
  begin(sizeof(num_entries));
  append(num_entries);
  finish(RecordType::kEnd);
}

std::string segment_name(std::uint64_t number) { return "journal-" + std::to_string(number) + ".log"; }

std::string checkpoint_name(std::uint64_t number) { return "checkpoint-" + std::to_string(number); }

}  // namespace tiercel::disk
