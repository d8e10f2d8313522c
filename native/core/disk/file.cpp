#include "file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

namespace tiercel::disk {

File File::open(const std::string& path, int flags, unsigned mode) {
  const int descriptor = ::open(path.c_str(), flags | O_CLOEXEC, static_cast<mode_t>(mode));
  if (descriptor < 0) throw FileError(errno, "cannot open", path);
  return {descriptor, path};
}

File& File::operator=(File&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  std::swap(path_, other.path_);
  return *this;
}

File::~File() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

std::uint64_t File::size() const {
  struct stat status {};
  if (::fstat(descriptor_, &status) != 0) throw FileError(errno, "cannot stat", path_);
  return static_cast<std::uint64_t>(status.st_size);
}

void File::resize(std::uint64_t bytes) const {
  if (::ftruncate(descriptor_, static_cast<off_t>(bytes)) != 0) throw FileError(errno, "cannot resize", path_);
}

void File::write_all(std::span<const std::byte> data) const {
  while (!data.empty()) {
    const ssize_t written = ::write(descriptor_, data.data(), data.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw FileError(errno, "cannot write", path_);
    if (written == 0) throw FileError(EIO, "wrote nothing", path_);
    data = data.subspan(static_cast<std::size_t>(written));
  }
}

std::size_t File::read_at(std::span<std::byte> target, std::uint64_t offset) const {
  std::size_t done = 0;
  while (done < target.size()) {
    const ssize_t got =
        ::pread(descriptor_, target.data() + done, target.size() - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw FileError(errno, "cannot read", path_);
    if (got == 0) break;
    done += static_cast<std::size_t>(got);
  }
  return done;
}

void File::sync() const {
  if (::fdatasync(descriptor_) != 0) throw FileError(errno, "cannot sync", path_);
}

void sync_directory(const std::string& path) {
  const File directory = File::open(path, O_RDONLY | O_DIRECTORY);
  if (::fsync(directory.descriptor()) != 0) throw FileError(errno, "cannot sync directory", path);
}

}  // namespace tiercel::disk
