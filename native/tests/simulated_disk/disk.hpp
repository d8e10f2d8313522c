// The state of the simulated disk: what is under it, which faults it draws, and which files are open on it.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "shadow.hpp"

// What the process sees of this library: the C functions it stands before, and what steers it.
#define SIMULATED extern "C" __attribute__((visibility("default")))

namespace tiercel::simulation {

enum Fault : std::size_t {
  kReadError,
  kWriteError,
  kNoSpace,
  kInterrupted,
  kShortRead,
  kShortWrite,
  kFlipOnRead,
  kFlipOnWrite,
  kSyncError,
  kStall,
  kNumFaults,
};

struct OpenFile {
  std::string path;
  std::shared_ptr<ShadowFile> shadow;  // none for a directory and for what is only read
  bool flips = false;
};

struct Disk {
  std::recursive_mutex mutex;  // what serves a call may itself call what is interposed
  bool started = false;
  std::string directory;
  Random random{0};
  std::unique_ptr<Shadow> shadow;
  std::array<std::uint32_t, kNumFaults> rates{};
  std::array<std::uint64_t, kNumFaults> counts{};
  std::uint32_t stall_us = 0;
  std::uint64_t crash_in = 0;  // 0: never
  bool is_dead = false;
  std::array<std::unique_ptr<OpenFile>, 4096> open;

  bool draw(Fault fault) {
    if (!random.happens(rates[fault])) return false;
    ++counts[fault];
    return true;
  }
  // Counts a call that changes something. True if the crash comes in this one.
  bool crashes() {
    if (crash_in == 0 || --crash_in != 0) return false;
    is_dead = true;
    return true;
  }
};

inline Disk& disk() {
  static Disk* const instance = new Disk;  // never destroyed: threads may still call when the process ends
  return *instance;
}

using Lock = std::unique_lock<std::recursive_mutex>;

}  // namespace tiercel::simulation
