// A disk that fails as a seed says: loaded before the C library (LD_PRELOAD), it stands between a process and the files
// under one directory. Everything else, and everything before sim_start, passes through.
//
// The lock is left alone. Sockets and manifests take part in crashes and power cuts; bits are flipped in blocks and
// journals only, because a changed manifest is refused by design, and then nothing more would be tested.
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "disk.hpp"

namespace tiercel::simulation {
namespace {

template <typename Function>
Function* original(const char* name) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

int refuse(int error) {
  errno = error;
  return -1;
}

bool is_ours(const char* path) {
  Disk& sim = disk();
  return sim.started && path != nullptr && std::strncmp(path, sim.directory.c_str(), sim.directory.size()) == 0;
}

OpenFile* file_at(int descriptor) {
  Disk& sim = disk();
  return descriptor >= 0 && static_cast<std::size_t>(descriptor) < sim.open.size()
             ? sim.open[static_cast<std::size_t>(descriptor)].get()
             : nullptr;
}

void stall(Lock& lock) {
  Disk& sim = disk();
  if (!sim.draw(kStall)) return;
  const std::uint32_t length_us = sim.stall_us;
  lock.unlock();
  ::usleep(length_us);
  lock.lock();
}

bool ends_with(const std::string& path, const char* suffix) {
  const std::string end(suffix);
  return path.size() >= end.size() && path.compare(path.size() - end.size(), end.size(), end) == 0;
}

std::vector<char> gather(const iovec* segments, int count) {
  std::vector<char> bytes;
  for (int i = 0; i < count; ++i) {
    const char* base = static_cast<const char*>(segments[i].iov_base);
    bytes.insert(bytes.end(), base, base + segments[i].iov_len);
  }
  return bytes;
}

// Writes a run of bytes as the disk's mood is. offset < 0: at the file's position, or its end.
ssize_t write_to(int descriptor, OpenFile& file, std::vector<char> bytes, off_t offset, Lock& lock) {
  Disk& sim = disk();
  stall(lock);
  if (sim.is_dead) return refuse(EIO);
  if (!file.shadow) return refuse(EBADF);
  int error = 0;
  std::size_t length = bytes.size();
  if (sim.crashes() || sim.draw(kWriteError)) {
    error = EIO;
    length = sim.random.below(length + 1);
  } else if (sim.draw(kInterrupted)) {
    return refuse(EINTR);
  } else if (sim.draw(kNoSpace)) {
    error = ENOSPC;
    length = 0;
  } else if (length > 1 && sim.draw(kShortWrite)) {
    length = 1 + sim.random.below(length - 1);
  } else if (file.flips && length > 0 && sim.draw(kFlipOnWrite)) {
    bytes[sim.random.below(length)] ^= static_cast<char>(1 << sim.random.below(8));
  }
  if (length > 0) {
    struct stat status {};
    ::fstat(descriptor, &status);
    const bool appends = (::fcntl(descriptor, F_GETFL) & O_APPEND) != 0;
    const off_t position = offset >= 0 ? offset : appends ? status.st_size : ::lseek(descriptor, 0, SEEK_CUR);
    file.shadow->before_write(static_cast<std::uint64_t>(position), static_cast<std::uint64_t>(position) + length);
    const ssize_t written = ::pwrite(file.shadow->descriptor(), bytes.data(), length, position);
    if (written != static_cast<ssize_t>(length)) return written;
    if (offset < 0 && !appends) ::lseek(descriptor, position + written, SEEK_SET);
  }
  return error != 0 ? refuse(error) : static_cast<ssize_t>(length);
}

ssize_t read_from(int descriptor, OpenFile& file, const iovec* segments, int count, off_t offset, Lock& lock) {
  static auto* const real_preadv = original<ssize_t(int, const iovec*, int, off_t)>("preadv");
  static auto* const real_readv = original<ssize_t(int, const iovec*, int)>("readv");
  Disk& sim = disk();
  stall(lock);
  if (sim.is_dead || sim.draw(kReadError)) return refuse(EIO);
  if (sim.draw(kInterrupted)) return refuse(EINTR);
  std::vector<iovec> parts(segments, segments + count);
  if (parts[0].iov_len > 1 && sim.draw(kShortRead)) {
    parts.resize(1);
    parts[0].iov_len = 1 + sim.random.below(parts[0].iov_len - 1);
  }
  const int num_parts = static_cast<int>(parts.size());
  const ssize_t got = offset >= 0 ? real_preadv(descriptor, parts.data(), num_parts, offset)
                                  : real_readv(descriptor, parts.data(), num_parts);
  if (got > 0 && file.flips && sim.draw(kFlipOnRead)) {
    const std::uint64_t first = std::min<std::uint64_t>(parts[0].iov_len, static_cast<std::uint64_t>(got));
    static_cast<char*>(parts[0].iov_base)[sim.random.below(first)] ^= static_cast<char>(1 << sim.random.below(8));
  }
  return got;
}

int open_file(const char* path, int flags, mode_t mode) {
  static auto* const real = original<int(int, const char*, int, ...)>("openat64");
  if (!is_ours(path)) return real(AT_FDCWD, path, flags, mode);
  Disk& sim = disk();
  const Lock lock(sim.mutex);
  const bool writes = (flags & O_ACCMODE) != O_RDONLY;
  if (sim.is_dead || (writes && sim.crashes())) return refuse(EIO);
  const bool existed = ::faccessat(AT_FDCWD, path, F_OK, 0) == 0;
  // What an open cuts off must be remembered, so it is cut by ftruncate afterwards.
  const int descriptor = real(AT_FDCWD, path, flags & ~(O_TRUNC | O_DIRECT), mode);
  if (descriptor < 0 || static_cast<std::size_t>(descriptor) >= sim.open.size()) return descriptor;
  auto file = std::make_unique<OpenFile>();
  file->path = path;
  file->flips = file->path.find("/data-") != std::string::npos || file->path.find("/journal-") != std::string::npos ||
                file->path.find("/checkpoint-") != std::string::npos;
  if (!existed) sim.shadow->created(file->path);
  if (writes && !ends_with(file->path, "/lock")) {
    file->shadow = sim.shadow->file_of(descriptor, file->path, !existed);
    if ((flags & O_TRUNC) != 0 && existed) {
      static auto* const cut = original<int(int, off_t)>("ftruncate64");
      file->shadow->before_resize(0);
      cut(descriptor, 0);
    }
  }
  if (!ends_with(file->path, "/lock")) sim.open[static_cast<std::size_t>(descriptor)] = std::move(file);
  return descriptor;
}

template <typename Change>
int change_names(const char* path, Change&& change) {
  Disk& sim = disk();
  const Lock lock(sim.mutex);
  if (sim.is_dead || sim.draw(kWriteError)) return refuse(EIO);
  const bool crashed = sim.crashes();
  if (crashed && sim.random.below(2) == 0) return refuse(EIO);
  const int status = change(*sim.shadow, path);
  return crashed ? refuse(EIO) : status;
}

int resize(int descriptor, off_t bytes, int (*real)(int, off_t)) {
  Disk& sim = disk();
  const Lock lock(sim.mutex);
  OpenFile* file = file_at(descriptor);
  if (file == nullptr || !file->shadow) return real(descriptor, bytes);
  if (sim.is_dead || sim.crashes() || sim.draw(kWriteError)) return refuse(EIO);
  file->shadow->before_resize(static_cast<std::uint64_t>(bytes));
  return real(descriptor, bytes);
}

int allocate(int descriptor, int mode, off_t offset, off_t bytes, int (*real)(int, int, off_t, off_t)) {
  Disk& sim = disk();
  const Lock lock(sim.mutex);
  OpenFile* file = file_at(descriptor);
  if (file == nullptr || !file->shadow) return real(descriptor, mode, offset, bytes);
  if (sim.is_dead || sim.crashes() || sim.draw(kWriteError)) return refuse(EIO);
  if (sim.draw(kInterrupted)) return refuse(EINTR);
  if (sim.draw(kNoSpace)) return refuse(ENOSPC);
  file->shadow->before_resize(static_cast<std::uint64_t>(offset + bytes));
  return real(descriptor, mode, offset, bytes);
}

int sync(int descriptor, int (*real)(int)) {
  Disk& sim = disk();
  Lock lock(sim.mutex);
  OpenFile* file = file_at(descriptor);
  if (file == nullptr) return real(descriptor);
  stall(lock);
  if (sim.is_dead || sim.crashes()) return refuse(EIO);
  if (sim.draw(kSyncError)) {
    if (file->shadow) file->shadow->sync_failed();
    return refuse(EIO);
  }
  if (file->shadow) {
    file->shadow->synced();
  } else {
    sim.shadow->directory_synced(file->path);
  }
  return 0;
}

}  // namespace
}  // namespace tiercel::simulation

using namespace tiercel::simulation;

#define WITH_FILE(descriptor, otherwise)    \
  Lock lock(disk().mutex, std::defer_lock); \
  OpenFile* file = nullptr;                 \
  if (disk().started) {                     \
    lock.lock();                            \
    file = file_at(descriptor);             \
  }                                         \
  if (file == nullptr) {                    \
    if (lock.owns_lock()) lock.unlock();    \
    return otherwise;                       \
  }

SIMULATED ssize_t pwritev(int descriptor, const iovec* segments, int count, off_t offset) {
  static auto* const real = original<ssize_t(int, const iovec*, int, off_t)>("pwritev");
  WITH_FILE(descriptor, real(descriptor, segments, count, offset));
  return write_to(descriptor, *file, gather(segments, count), offset, lock);
}
SIMULATED ssize_t preadv(int descriptor, const iovec* segments, int count, off_t offset) {
  static auto* const real = original<ssize_t(int, const iovec*, int, off_t)>("preadv");
  WITH_FILE(descriptor, real(descriptor, segments, count, offset));
  return read_from(descriptor, *file, segments, count, offset, lock);
}
SIMULATED ssize_t write(int descriptor, const void* data, std::size_t length) {
  static auto* const real = original<ssize_t(int, const void*, std::size_t)>("write");
  WITH_FILE(descriptor, real(descriptor, data, length));
  const char* bytes = static_cast<const char*>(data);
  return write_to(descriptor, *file, {bytes, bytes + length}, -1, lock);
}
SIMULATED ssize_t pread(int descriptor, void* data, std::size_t length, off_t offset) {
  static auto* const real = original<ssize_t(int, void*, std::size_t, off_t)>("pread");
  WITH_FILE(descriptor, real(descriptor, data, length, offset));
  const iovec segment{data, length};
  return read_from(descriptor, *file, &segment, 1, offset, lock);
}
SIMULATED ssize_t read(int descriptor, void* data, std::size_t length) {
  static auto* const real = original<ssize_t(int, void*, std::size_t)>("read");
  WITH_FILE(descriptor, real(descriptor, data, length));
  const iovec segment{data, length};
  return read_from(descriptor, *file, &segment, 1, -1, lock);
}
SIMULATED int open(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(arguments, mode_t) : 0;
  va_end(arguments);
  return open_file(path, flags, mode);
}
SIMULATED int open64(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(arguments, mode_t) : 0;
  va_end(arguments);
  return open_file(path, flags, mode);
}
SIMULATED int close(int descriptor) {
  static auto* const real = original<int(int)>("close");
  if (disk().started && file_at(descriptor) != nullptr) {
    std::unique_ptr<OpenFile> closed;
    const Lock lock(disk().mutex);
    closed = std::move(disk().open[static_cast<std::size_t>(descriptor)]);
    return real(descriptor);
  }
  return real(descriptor);
}
SIMULATED int rename(const char* source, const char* target) {
  static auto* const real = original<int(const char*, const char*)>("rename");
  if (!is_ours(source)) return real(source, target);
  return change_names(source, [&](Shadow& shadow, const char* path) {
    shadow.before_rename(path, target);
    const int status = real(path, target);
    status == 0 ? shadow.confirm() : shadow.withdraw();
    return status;
  });
}
SIMULATED int unlink(const char* path) {
  static auto* const real = original<int(const char*)>("unlink");
  if (!is_ours(path)) return real(path);
  return change_names(path, [&](Shadow& shadow, const char* name) {
    shadow.before_unlink(name);
    const int status = real(name);
    status == 0 ? shadow.confirm() : shadow.withdraw();
    return status;
  });
}
SIMULATED int ftruncate(int descriptor, off_t bytes) {
  return resize(descriptor, bytes, original<int(int, off_t)>("ftruncate"));
}
SIMULATED int ftruncate64(int descriptor, off_t bytes) {
  return resize(descriptor, bytes, original<int(int, off_t)>("ftruncate64"));
}
SIMULATED int fallocate(int descriptor, int mode, off_t offset, off_t bytes) {
  return allocate(descriptor, mode, offset, bytes, original<int(int, int, off_t, off_t)>("fallocate"));
}
SIMULATED int fsync(int descriptor) { return sync(descriptor, original<int(int)>("fsync")); }
SIMULATED int fdatasync(int descriptor) { return sync(descriptor, original<int(int)>("fdatasync")); }
