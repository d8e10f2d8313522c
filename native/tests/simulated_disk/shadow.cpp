#include "shadow.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <utility>

namespace tiercel::simulation {
namespace {

// The simulation itself must not fail: its results would mean nothing.
void require(bool holds, const char* what) {
  if (holds) return;
  std::perror(what);
  std::abort();
}

std::string directory_of(const std::string& path) { return path.substr(0, path.rfind('/')); }

}  // namespace

ShadowFile::~ShadowFile() { ::close(descriptor_); }

std::uint64_t ShadowFile::size() const {
  struct stat status {};
  require(::fstat(descriptor_, &status) == 0, "simulated disk: fstat");
  return static_cast<std::uint64_t>(status.st_size);
}

void ShadowFile::before_write(std::uint64_t start, std::uint64_t stop) {
  if (stop > size()) before_resize(stop);
  for (std::uint64_t page = start / kPageBytes; page * kPageBytes < stop; ++page) {
    const auto [entry, is_new] = pages_.try_emplace(page);
    entry->second.is_lost = false;
    if (!is_new || page * kPageBytes >= durable_bytes_) continue;
    entry->second.durable.resize(kPageBytes);
    const ssize_t got =
        ::pread(descriptor_, entry->second.durable.data(), kPageBytes, static_cast<off_t>(page * kPageBytes));
    require(got >= 0, "simulated disk: pread");
    entry->second.durable.resize(static_cast<std::size_t>(got));
  }
}

void ShadowFile::before_resize(std::uint64_t bytes) {
  const std::uint64_t now = size();
  if (bytes < now) before_write(bytes, std::min(now, durable_bytes_));
  resized_ = true;
}

void ShadowFile::synced() noexcept {
  std::erase_if(pages_, [](const auto& entry) { return !entry.second.is_lost; });
  durable_bytes_ = size();
  resized_ = false;
}

void ShadowFile::sync_failed() noexcept {
  for (auto& [number, page] : pages_) page.is_lost = true;
}

void ShadowFile::cut_power(Random& random) {
  for (const auto& [number, page] : pages_) {
    constexpr std::uint64_t kSectorBytes = 512;
    const std::uint64_t fate = random.below(4);  // kept, lost, or torn at a sector
    if (fate == 0) continue;
    std::vector<char> content = page.durable;
    content.resize(kPageBytes);  // what was allocated and never written reads as zero
    const std::uint64_t from = fate == 1 ? random.below(kPageBytes / kSectorBytes) * kSectorBytes : 0;
    const auto offset = static_cast<off_t>(number * kPageBytes + from);
    const ssize_t length = static_cast<ssize_t>(kPageBytes - from);
    require(::pwrite(descriptor_, content.data() + from, kPageBytes - from, offset) == length,
            "simulated disk: pwrite");
  }
  if (resized_) {  // the old size, the new one or, of a file that grew, one between
    std::uint64_t kept = size();
    if (random.below(3) == 0) kept = durable_bytes_;
    if (kept > durable_bytes_ && random.below(2) == 0) kept = durable_bytes_ + random.below(kept - durable_bytes_ + 1);
    require(::ftruncate(descriptor_, static_cast<off_t>(kept)) == 0, "simulated disk: ftruncate");
  }
  pages_.clear();
  resized_ = false;
  durable_bytes_ = size();
}

std::shared_ptr<ShadowFile> Shadow::file_of(int descriptor, const std::string& path, bool created) {
  std::erase_if(files_, [](const auto& entry) { return entry.second.use_count() == 1 && entry.second->is_clean(); });
  struct stat status {};
  require(::fstat(descriptor, &status) == 0, "simulated disk: fstat");
  std::shared_ptr<ShadowFile>& file = files_[{status.st_dev, status.st_ino}];
  if (!file) {
    const int own = static_cast<int>(::openat(AT_FDCWD, path.c_str(), O_RDWR | O_CLOEXEC));
    require(own >= 0, "simulated disk: open");
    file = std::make_shared<ShadowFile>(own, created ? 0 : static_cast<std::uint64_t>(status.st_size));
  }
  return file;
}

void Shadow::created(const std::string& path) { namings_.push_back({Naming::Act::kCreate, path, "", ""}); }

std::string Shadow::stash(const std::string& path) {
  std::string kept = stash_ + "/" + std::to_string(num_stashed_++);
  return ::link(path.c_str(), kept.c_str()) == 0 ? kept : std::string();
}

void Shadow::before_rename(const std::string& source, const std::string& target) {
  pending_ = Naming{Naming::Act::kRename, source, target, stash(target)};
}

void Shadow::before_unlink(const std::string& path) { pending_ = Naming{Naming::Act::kUnlink, path, "", stash(path)}; }

void Shadow::confirm() { namings_.push_back(*std::exchange(pending_, std::nullopt)); }

void Shadow::withdraw() {
  if (!pending_->stashed.empty()) ::unlinkat(AT_FDCWD, pending_->stashed.c_str(), 0);
  pending_.reset();
}

void Shadow::directory_synced(const std::string& path) {
  std::erase_if(namings_, [&](const Naming& naming) {
    if (directory_of(naming.path) != path) return false;
    if (!naming.stashed.empty()) ::unlinkat(AT_FDCWD, naming.stashed.c_str(), 0);
    return true;
  });
}

void Shadow::undo(const Naming& naming) {
  switch (naming.act) {
    case Naming::Act::kCreate:
      ::unlinkat(AT_FDCWD, naming.path.c_str(), 0);
      break;
    case Naming::Act::kRename:
      ::renameat(AT_FDCWD, naming.target.c_str(), AT_FDCWD, naming.path.c_str());
      if (!naming.stashed.empty()) ::renameat(AT_FDCWD, naming.stashed.c_str(), AT_FDCWD, naming.target.c_str());
      break;
    case Naming::Act::kUnlink:
      if (!naming.stashed.empty()) ::renameat(AT_FDCWD, naming.stashed.c_str(), AT_FDCWD, naming.path.c_str());
      break;
  }
}

void Shadow::cut_power(Random& random) {
  for (const auto& [identity, file] : files_) file->cut_power(random);
  files_.clear();
  // A filesystem's own journal keeps names in order: some first ones survive.
  const std::uint64_t num_kept = random.below(namings_.size() + 1);
  for (std::uint64_t i = 0; i < namings_.size(); ++i) {
    if (i < num_kept && !namings_[i].stashed.empty()) ::unlinkat(AT_FDCWD, namings_[i].stashed.c_str(), 0);
  }
  while (namings_.size() > num_kept) {
    undo(namings_.back());
    namings_.pop_back();
  }
  namings_.clear();
}

}  // namespace tiercel::simulation
