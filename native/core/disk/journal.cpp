#include "journal.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <stdexcept>
#include <utility>

namespace tiercel::disk {
namespace {

// The file that a checkpoint is written to before it gets its name: removed unless that happens.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& path)
      : file_(File::open(path, O_WRONLY | O_CREAT | O_TRUNC)), named_(false) {}
  ~TemporaryFile() {
    if (!named_) ::unlink(file_.path().c_str());
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  const File& file() const noexcept { return file_; }
  void rename_to(const std::string& path) {
    if (std::rename(file_.path().c_str(), path.c_str()) != 0) throw FileError(errno, "cannot rename to", path);
    named_ = true;
  }

 private:
  File file_;
  bool named_;
};

}  // namespace

Journal::Journal(std::string directory, std::uint32_t num_slots)
    : directory_(std::move(directory)), num_slots_(num_slots) {
  File::open(directory_, O_RDONLY | O_DIRECTORY);  // fails now rather than at the first append
}

Replay Journal::recover() {
  const std::lock_guard lock(mutex_);
  if (recovered_) throw std::logic_error("the journal was recovered before");
  Replay replay = replay_journal(directory_, num_slots_);
  if (replay.torn_bytes > 0) {
    const std::string path = directory_ + "/" + segment_name(replay.segments.back());
    const File segment = File::open(path, O_WRONLY);
    segment.resize(replay.last_segment_bytes);
    segment.sync();
  }
  number_ = replay.next_number;
  next_sequence_ = replay.next_sequence;
  appended_bytes_ = replay.segment_bytes;
  num_segments_ = replay.segments.size();
  recovered_ = true;
  return replay;
}

void Journal::put(const KeyBytes& parent, std::span<const KeyBytes> keys, std::span<const std::uint32_t> slots,
                  std::span<const std::uint64_t> checksums) {
  const std::lock_guard lock(mutex_);
  RecordWriter records = writer();
  records.put(parent, keys, slots, checksums);
  append(std::move(records));
}

void Journal::free(std::span<const std::uint32_t> slots) {
  const std::lock_guard lock(mutex_);
  RecordWriter records = writer();
  records.free(slots);
  append(std::move(records));
}

void Journal::append(RecordWriter&& records) {
  check_recovered();
  if (records.bytes().empty()) return;
  if (!segment_) open_segment();
  try {
    segment_->write_all(records.bytes());
  } catch (const FileError&) {
    // Cut what was written of it. If even that fails, the segment ends here: what is torn is stepped over by recovery,
    // and whole records may lie there, so their numbers are not used again.
    if (::ftruncate(segment_->descriptor(), static_cast<off_t>(segment_bytes_)) != 0) {
      segment_.reset();
      ++number_;
      next_sequence_ = records.next_sequence();
    }
    throw;
  }
  segment_bytes_ += records.bytes().size();
  appended_bytes_ += records.bytes().size();
  next_sequence_ = records.next_sequence();
}

void Journal::open_segment() {
  const std::string path = directory_ + "/" + segment_name(number_);
  segment_ = std::make_shared<const File>(File::open(path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND));
  segment_bytes_ = 0;
  ++num_segments_;
}

void Journal::begin_checkpoint() {
  const std::lock_guard lock(mutex_);
  check_recovered();
  segment_.reset();
  checkpoint_number_ = ++number_;
  bytes_before_checkpoint_ = appended_bytes_;
  segments_before_checkpoint_ = num_segments_;
}

void Journal::write_checkpoint(std::span<const Mapping> mappings) {
  const std::lock_guard checkpoint_lock(checkpoint_mutex_);
  std::unique_lock lock(mutex_);
  if (!checkpoint_number_) throw std::logic_error("no checkpoint was begun");
  const std::uint64_t number = *std::exchange(checkpoint_number_, std::nullopt);
  const std::uint64_t bytes_replaced = bytes_before_checkpoint_;
  const std::uint64_t segments_replaced = segments_before_checkpoint_;
  lock.unlock();  // appends go on, to segment `number` and later

  TemporaryFile temporary(directory_ + "/" + checkpoint_name(number) + ".tmp");
  constexpr std::size_t kEntriesMax = kPayloadBytesMax / kEntryBytes;
  RecordWriter records(number, 0);
  for (std::size_t start = 0; start < mappings.size(); start += kEntriesMax) {
    records.entries(mappings.subspan(start, std::min(kEntriesMax, mappings.size() - start)));
    temporary.file().write_all(records.bytes());
    records.clear();
  }
  records.end(mappings.size());
  temporary.file().write_all(records.bytes());
  temporary.file().sync();
  temporary.rename_to(directory_ + "/" + checkpoint_name(number));
  sync_directory(directory_);
  remove_before(number);

  lock.lock();
  appended_bytes_ -= bytes_replaced;
  num_segments_ -= segments_replaced;
}

void Journal::remove_before(std::uint64_t number) const {
  const JournalFiles files = list_journal_files(directory_);
  // A file that cannot be removed is harmless: recovery starts at the newest checkpoint.
  for (const std::uint64_t old : files.segments) {
    if (old < number) ::unlink((directory_ + "/" + segment_name(old)).c_str());
  }
  for (const std::uint64_t old : files.checkpoints) {
    if (old < number) ::unlink((directory_ + "/" + checkpoint_name(old)).c_str());
  }
}

void Journal::sync() {
  std::shared_ptr<const File> segment;
  {
    const std::lock_guard lock(mutex_);
    check_recovered();
    segment = segment_;
  }
  if (!segment) return;
  segment->sync();  // without the lock: appends go on
  sync_directory(directory_);
}

void Journal::check_recovered() const {
  if (!recovered_) throw std::logic_error("recover the journal first");
}

}  // namespace tiercel::disk
