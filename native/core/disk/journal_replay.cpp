#include "journal_replay.hpp"

#include <fcntl.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <limits>
#include <string_view>
#include <utility>

#include "file.hpp"
#include "journal_reader.hpp"

namespace tiercel::disk {
namespace {

constexpr std::size_t kAbsent = std::numeric_limits<std::size_t>::max();

std::optional<std::uint64_t> number_in(std::string_view name, std::string_view prefix, std::string_view suffix) {
  if (!name.starts_with(prefix) || !name.ends_with(suffix) || name.size() <= prefix.size() + suffix.size()) {
    return std::nullopt;
  }
  const std::string_view digits = name.substr(prefix.size(), name.size() - prefix.size() - suffix.size());
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  // The largest numbers are left out so that there is always a next one.
  const bool whole = error == std::errc() && end == digits.data() + digits.size();
  return whole && number < std::numeric_limits<std::uint64_t>::max() / 2 ? std::optional(number) : std::nullopt;
}

KeyBytes key_at(const std::byte* source) { return load<KeyBytes>(source); }

// Applies records in order. The later mapping of a slot replaces the earlier one.
class Applier {
 public:
  Applier(Replay& replay, std::uint32_t num_slots) : replay_(replay), latest_(num_slots, kAbsent) {}

  void apply(const Record& record) {
    const std::byte* raw = record.payload.data();
    const std::byte* end = raw + record.payload.size();
    switch (record.header.type) {
      case RecordType::kPut: {
        KeyBytes parent = key_at(raw);
        for (raw += kKeyBytes; raw < end; raw += kPutEntryBytes) {
          const KeyBytes key = key_at(raw);
          map({parent, key, load<std::uint32_t>(raw + kKeyBytes), load<std::uint64_t>(raw + kKeyBytes + 4)});
          parent = key;
        }
        break;
      }
      case RecordType::kFree:
        for (; raw < end; raw += sizeof(std::uint32_t)) unmap(load<std::uint32_t>(raw));
        break;
      case RecordType::kEntries:
        for (; raw < end; raw += kEntryBytes) {
          const std::byte* slot = raw + 2 * kKeyBytes;
          map({key_at(raw), key_at(raw + kKeyBytes), load<std::uint32_t>(slot), load<std::uint64_t>(slot + 4)});
          ++num_entries_;
        }
        break;
      case RecordType::kEnd:
        complete_ = load<std::uint64_t>(raw) == num_entries_;
        break;
    }
  }

  // Whether the checkpoint that was applied had its end and all its entries.
  bool complete() const noexcept { return complete_; }

  void finish() {
    std::size_t kept = 0;
    for (std::size_t i = 0; i < replay_.mappings.size(); ++i) {
      if (latest_[replay_.mappings[i].slot] == i) replay_.mappings[kept++] = replay_.mappings[i];
    }
    replay_.mappings.resize(kept);
  }

 private:
  void map(const Mapping& mapping) {
    if (mapping.slot >= latest_.size()) {
      ++replay_.num_out_of_range;
      return;
    }
    latest_[mapping.slot] = replay_.mappings.size();
    replay_.mappings.push_back(mapping);
  }

  void unmap(std::uint32_t slot) {
    if (slot < latest_.size()) latest_[slot] = kAbsent;
  }

  Replay& replay_;
  std::vector<std::size_t> latest_;  // per slot: index into mappings
  std::uint64_t num_entries_ = 0;
  bool complete_ = false;
};

void replay_checkpoint(const std::string& directory, std::uint64_t number, Replay& replay, Applier& applier) {
  const File file = File::open(directory + "/" + checkpoint_name(number), O_RDONLY);
  RecordReader reader(file, number);
  while (const auto record = reader.next()) applier.apply(*record);
  replay.num_corrupt += reader.num_gaps();
  if (!applier.complete() || reader.good_bytes() != reader.file_bytes()) ++replay.num_corrupt;
}

void replay_segment(const std::string& directory, std::uint64_t number, bool last, Replay& replay, Applier& applier) {
  const File file = File::open(directory + "/" + segment_name(number), O_RDONLY);
  RecordReader reader(file, number);
  bool behind_another = !replay.segments.empty();
  while (const auto record = reader.next()) {
    // A gap inside a file is counted by the reader; this one is a missing file, or a missing end of the one before.
    if (std::exchange(behind_another, false) && record->header.sequence > replay.next_sequence) ++replay.num_corrupt;
    // A record that was already replayed, or one from before what was: never written so, never applied.
    if (record->header.sequence < replay.next_sequence) {
      ++replay.num_corrupt;
      continue;
    }
    applier.apply(*record);
    replay.next_sequence = record->header.sequence + 1;
  }
  const std::uint64_t tail = reader.file_bytes() - reader.good_bytes();
  replay.num_corrupt += reader.num_gaps() + (tail > 0 && !last ? 1 : 0);
  replay.segment_bytes += reader.good_bytes();
  replay.segments.push_back(number);
  if (!last) return;
  replay.torn_bytes = tail;
  replay.last_segment_bytes = reader.good_bytes();
}

}  // namespace

JournalFiles list_journal_files(const std::string& directory) {
  JournalFiles files;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(directory, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (const auto segment = number_in(name, "journal-", ".log")) files.segments.push_back(*segment);
    if (const auto checkpoint = number_in(name, "checkpoint-", "")) files.checkpoints.push_back(*checkpoint);
  }
  if (error) throw FileError(error.value(), "cannot list", directory);
  std::ranges::sort(files.segments);
  std::ranges::sort(files.checkpoints);
  return files;
}

Replay replay_journal(const std::string& directory, std::uint32_t num_slots) {
  const JournalFiles files = list_journal_files(directory);
  Replay replay;
  Applier applier(replay, num_slots);
  std::uint64_t first_segment = 0;
  if (!files.checkpoints.empty()) {
    first_segment = files.checkpoints.back();
    replay.next_number = first_segment + 1;
    replay_checkpoint(directory, first_segment, replay, applier);
  }
  for (const std::uint64_t number : files.segments) {
    if (number < first_segment) continue;  // left behind when the checkpoint was written
    replay_segment(directory, number, number == files.segments.back(), replay, applier);
    replay.next_number = std::max(replay.next_number, number + 1);
  }
  applier.finish();
  return replay;
}

}  // namespace tiercel::disk
