// Reads the records of one journal file, whatever state it is in, through a window of bounded size.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "file.hpp"
#include "journal_format.hpp"

namespace tiercel::disk {

struct Record {
  RecordHeader header;
  std::span<const std::byte> payload;  // valid until the next call of RecordReader::next
};

class RecordReader {
 public:
  // Reads the file as number `number`. The file must outlive the reader.
  RecordReader(const File& file, std::uint64_t number);

  // The next good record, or nothing at the end. Bytes that are not part of a good record are stepped over. Work spent
  // on searching is bounded, and what lies behind the bound is given up. Throws FileError if the file cannot be read.
  std::optional<Record> next();

  // End of the last good record; what lies behind is torn or foreign.
  std::uint64_t good_bytes() const noexcept { return good_bytes_; }
  std::uint64_t file_bytes() const noexcept { return file_bytes_; }
  // Number of gaps between good records (and before the first) that were stepped over.
  std::uint64_t num_gaps() const noexcept { return num_gaps_; }

 private:
  std::span<const std::byte> window(std::uint64_t offset, std::size_t bytes);
  std::optional<Record> record_at(std::uint64_t offset);

  const File& file_;
  const std::uint64_t number_;
  const std::uint64_t file_bytes_;
  std::uint64_t good_bytes_ = 0;
  std::uint64_t num_gaps_ = 0;
  std::uint64_t wasted_bytes_ = 0;  // hashed for records that proved bad
  std::uint64_t buffer_offset_ = 0;
  std::size_t buffer_bytes_ = 0;
  std::vector<std::byte> buffer_;
};

}  // namespace tiercel::disk
