#include "journal_reader.hpp"

#include <algorithm>

namespace tiercel::disk {
namespace {

constexpr std::size_t kWindowBytes = 4 << 20;  // holds the largest record
static_assert(kWindowBytes >= kHeaderBytes + kPayloadBytesMax);

// A file made to look like records everywhere must not cost more than this.
constexpr std::uint64_t kWastedBytesMax = 256 << 20;
// Damage is searched for the next good record this far; sound files are never larger than a segment behind damage.
constexpr std::uint64_t kSearchBytesMax = 256 << 20;

}  // namespace

RecordReader::RecordReader(const File& file, std::uint64_t number)
    : file_(file), number_(number), file_bytes_(file.size()) {
  buffer_.resize(static_cast<std::size_t>(std::min<std::uint64_t>(kWindowBytes, file_bytes_)));
}

std::optional<Record> RecordReader::next() {
  const std::uint64_t start = good_bytes_;
  const std::uint64_t search_end = std::min(file_bytes_, start + kSearchBytesMax);
  for (std::uint64_t offset = start; offset + kHeaderBytes <= search_end; offset += 4) {
    const std::optional<Record> record = record_at(offset);
    if (record) {
      if (offset != start) ++num_gaps_;
      good_bytes_ = offset + kHeaderBytes + record->header.payload_bytes;
      return record;
    }
    if (wasted_bytes_ > kWastedBytesMax) break;
  }
  return std::nullopt;
}

std::optional<Record> RecordReader::record_at(std::uint64_t offset) {
  const std::span<const std::byte> head = window(offset, kHeaderBytes);
  if (head.size() < kHeaderBytes) return std::nullopt;
  const std::optional<RecordHeader> header = decode_header(head.first<kHeaderBytes>(), number_);
  if (!header) return std::nullopt;
  const std::span<const std::byte> whole = window(offset, kHeaderBytes + header->payload_bytes);
  if (whole.size() < kHeaderBytes + header->payload_bytes) return std::nullopt;
  const std::span<const std::byte> payload = whole.subspan(kHeaderBytes);
  if (payload_matches(*header, payload, number_)) return Record{*header, payload};
  wasted_bytes_ += payload.size();
  return std::nullopt;
}

// The file's bytes [offset, offset + bytes), fewer at its end.
std::span<const std::byte> RecordReader::window(std::uint64_t offset, std::size_t bytes) {
  const bool held = offset >= buffer_offset_ && offset + bytes <= buffer_offset_ + buffer_bytes_;
  if (!held) {
    buffer_offset_ = offset;
    buffer_bytes_ = file_.read_at(buffer_, offset);
  }
  const auto skip = static_cast<std::size_t>(offset - buffer_offset_);
  return std::span<const std::byte>(buffer_).subspan(skip, std::min(bytes, buffer_bytes_ - skip));
}

}  // namespace tiercel::disk
