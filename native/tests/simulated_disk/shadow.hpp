// What of a directory's files would survive a power cut: the content that each unsynced page replaced, and the names
// that no sync of their directory has confirmed.
//
// Everything happens on real files, so a killed process loses nothing. A power cut takes back what was not synced, page
// by page and name by name, as the generator decides: a disk may have kept any part of it. Not thread-safe.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "../random.hpp"

namespace tiercel::simulation {

using testing::Random;

// One file's unsynced pages. Holds a descriptor of its own, so it outlives the file's name.
class ShadowFile {
 public:
  ShadowFile(int descriptor, std::uint64_t durable_bytes) noexcept
      : descriptor_(descriptor), durable_bytes_(durable_bytes) {}
  ~ShadowFile();
  ShadowFile(const ShadowFile&) = delete;
  ShadowFile& operator=(const ShadowFile&) = delete;

  int descriptor() const noexcept { return descriptor_; }
  bool is_clean() const noexcept { return pages_.empty() && !resized_; }
  // Bytes [start, stop) are about to change, or the size is.
  void before_write(std::uint64_t start, std::uint64_t stop);
  void before_resize(std::uint64_t bytes);
  void synced() noexcept;
  // A sync failed: as in Linux, the pages count as clean for the next one, written or not.
  void sync_failed() noexcept;
  void cut_power(Random& random);

 private:
  static constexpr std::uint64_t kPageBytes = 4096;
  struct Page {
    std::vector<char> durable;
    bool is_lost = false;  // no later sync saves it
  };
  std::uint64_t size() const;

  const int descriptor_;
  std::uint64_t durable_bytes_;
  bool resized_ = false;
  std::map<std::uint64_t, Page> pages_;
};

class Shadow {
 public:
  // stash: a directory on the same filesystem, for names that were removed and may come back.
  explicit Shadow(std::string stash) : stash_(std::move(stash)) {}

  // The file behind an open descriptor; one that nobody knows is durable as it is, unless it was just created.
  std::shared_ptr<ShadowFile> file_of(int descriptor, const std::string& path, bool created);
  void created(const std::string& path);
  // Called before a rename or unlink; `confirm` after it succeeded, `withdraw` after it failed.
  void before_rename(const std::string& source, const std::string& target);
  void before_unlink(const std::string& path);
  void confirm();
  void withdraw();
  void directory_synced(const std::string& path);
  // Every file must be closed.
  void cut_power(Random& random);

 private:
  struct Naming {
    enum class Act { kCreate, kRename, kUnlink } act;
    std::string path;
    std::string target;
    std::string stashed;  // link to what had the name before; empty: nothing had
  };
  std::string stash(const std::string& path);
  static void undo(const Naming& naming);

  const std::string stash_;
  std::uint64_t num_stashed_ = 0;
  std::map<std::pair<dev_t, ino_t>, std::shared_ptr<ShadowFile>> files_;
  std::vector<Naming> namings_;  // oldest first
  std::optional<Naming> pending_;
};

}  // namespace tiercel::simulation
