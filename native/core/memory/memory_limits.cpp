#include "memory/memory_limits.hpp"

#include <malloc.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <limits>
#include <optional>
#include <string>
#include <system_error>

namespace tiercel {
namespace {

namespace fs = std::filesystem;

// The number behind `name` in a file of "name value" lines.
std::optional<std::uint64_t> read_field(const fs::path& path, const std::string& name) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    if (line.starts_with(name)) return std::stoull(line.substr(name.size()));
  }
  return std::nullopt;
}

// The number that a file consists of; nothing if it is absent or says "max".
std::optional<std::uint64_t> read_number(const fs::path& path) {
  std::ifstream file(path);
  std::string text;
  if (!(file >> text)) return std::nullopt;
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// This process's control group below a hierarchy's root, as /proc/self/cgroup tells it: "0::/a/b" for the unified
// hierarchy, "4:memory:/a/b" for version 1. Empty for the root, and where there is no such hierarchy.
fs::path control_group(const std::string& controller) {
  std::ifstream file("/proc/self/cgroup");
  const std::string marker = ":" + controller + ":/";
  std::string line;
  while (std::getline(file, line)) {
    const std::size_t position = line.find(marker);
    if (position != std::string::npos) return line.substr(position + marker.size());
  }
  return {};
}

// What one version of control groups calls its files.
struct Hierarchy {
  fs::path root;
  std::string controller;
  std::string limit_file;
  std::string usage_file;
  std::string stat_prefix;
};

void lower(MemoryRoom& room, const fs::path& group, const Hierarchy& names) {
  const auto limit = read_number(group / names.limit_file);
  const auto usage = read_number(group / names.usage_file);
  if (!limit || !usage) return;
  const fs::path stat = group / "memory.stat";
  const std::uint64_t droppable = read_field(stat, names.stat_prefix + "inactive_file ").value_or(0) +
                                  read_field(stat, names.stat_prefix + "active_file ").value_or(0);
  const std::uint64_t used = *usage - std::min(*usage, droppable);
  const std::uint64_t left = *limit - std::min(*limit, used);
  if (left < room.num_bytes) room = {left, (group / names.limit_file).string()};
}

}  // namespace

MemoryRoom available_memory() {
  static const std::array<Hierarchy, 2> hierarchies{
      Hierarchy{"/sys/fs/cgroup", "", "memory.max", "memory.current", ""},
      Hierarchy{"/sys/fs/cgroup/memory", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"}};
  MemoryRoom room{std::numeric_limits<std::uint64_t>::max(), "nothing"};
  if (const auto kibibytes = read_field("/proc/meminfo", "MemAvailable:")) {
    room = {*kibibytes * 1024, "MemAvailable in /proc/meminfo"};
  }
  for (const Hierarchy& names : hierarchies) {
    fs::path group = control_group(names.controller);
    for (; !group.empty(); group = group.parent_path()) lower(room, names.root / group, names);
    lower(room, names.root, names);
  }
  return room;
}

void return_freed_memory() noexcept {
#ifdef __GLIBC__
  ::malloc_trim(0);
#endif
}

}  // namespace tiercel
