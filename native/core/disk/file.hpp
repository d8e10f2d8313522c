// Files and their failures: an owned descriptor and an error that names errno and path.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <system_error>
#include <utility>

namespace tiercel::disk {

// An operating system's refusal. `path` is what the call was about.
class FileError : public std::system_error {
 public:
  FileError(int error, const std::string& what, std::string path)
      : std::system_error(error, std::generic_category(), what), path_(std::move(path)) {}
  const std::string& path() const noexcept { return path_; }

 private:
  std::string path_;
};

// An open file, closed with its owner. A File that exists and was not moved from is open.
class File {
 public:
  // Opens with O_CLOEXEC added to flags. Throws FileError.
  static File open(const std::string& path, int flags, unsigned mode = 0644);
  // Takes over an open descriptor.
  File(int descriptor, std::string path) noexcept : descriptor_(descriptor), path_(std::move(path)) {}
  File(File&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)), path_(std::move(other.path_)) {}
  File& operator=(File&& other) noexcept;
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File();

  int descriptor() const noexcept { return descriptor_; }
  const std::string& path() const noexcept { return path_; }
  // Size in bytes now. Throws FileError.
  std::uint64_t size() const;
  // Sets the size; what is cut is gone, what is added reads as zero. Throws FileError.
  void resize(std::uint64_t bytes) const;
  // Appends or overwrites at the file's position. Throws FileError; part of the data may have been written.
  void write_all(std::span<const std::byte> data) const;
  // Reads up to target.size() bytes at offset; fewer only at the end of the file. Throws FileError.
  std::size_t read_at(std::span<std::byte> target, std::uint64_t offset) const;
  // Makes the data durable. Throws FileError.
  void sync() const;

 private:
  int descriptor_;
  std::string path_;
};

// Makes the names in a directory durable. Throws FileError.
void sync_directory(const std::string& path);

}  // namespace tiercel::disk
