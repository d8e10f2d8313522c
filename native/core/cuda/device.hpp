// A GPU's primary context, which PyTorch and other users of the runtime share, and handles that live in it.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "cuda/driver.hpp"

namespace tiercel::cuda {

// Keeps the device's primary context alive. Handles hold the device, so it goes last.
class Device {
 public:
  explicit Device(int ordinal);  // DriverMissing without a driver, std::invalid_argument for a device that is not there
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  ContextHandle context() const noexcept { return context_; }
  int ordinal() const noexcept { return ordinal_; }
  int capability() const { return attribute(75) * 10 + attribute(76); }  // 90 for compute capability 9.0
  int num_processors() const { return attribute(16); }
  std::string name() const;
  std::size_t memory_bytes() const;
  // Whether kernels reach registered host memory at the address that the processor uses.
  bool shares_host_addresses() const { return attribute(91) != 0; }
  // Wait for an event that others have recorded; false if it has not passed after `timeout`. Naps between looks: the
  // driver's own wait has no bound, and spins unless the event's maker has asked it not to.
  bool wait_event(EventHandle event, std::chrono::duration<double> timeout) const;

 private:
  int attribute(int number) const;

  int ordinal_;
  int device_ = 0;
  ContextHandle context_ = nullptr;
};

// Makes a device's context the calling thread's for a scope. Threads of ours come and go between devices.
class ContextScope {
 public:
  explicit ContextScope(const Device& device) { check(driver().CtxPushCurrent(device.context()), "cuCtxPushCurrent"); }
  ~ContextScope() {
    ContextHandle popped = nullptr;
    driver().CtxPopCurrent(&popped);
  }
  ContextScope(const ContextScope&) = delete;
  ContextScope& operator=(const ContextScope&) = delete;
};

// Runs what releases a handle. The process may be ending, its driver gone before us: nobody could use an error here.
template <typename Release>
void in_context(const Device& device, Release release) noexcept {
  ContextHandle popped = nullptr;
  if (driver().CtxPushCurrent(device.context()) != 0) return;
  release();
  driver().CtxPopCurrent(&popped);
}

enum class Priority { kLeast, kGreatest };

// A stream that neither waits for nor holds up the legacy default stream.
class Stream {
 public:
  Stream(std::shared_ptr<const Device> device, Priority priority);
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  StreamHandle get() const noexcept { return handle_; }

 private:
  std::shared_ptr<const Device> device_;
  StreamHandle handle_ = nullptr;
};

enum class EventKind {
  kTimed,    // its waiter sleeps instead of spinning: a transfer lasts milliseconds, and cores are scarce
  kOrdering  // between streams only
};

class Event {
 public:
  Event(std::shared_ptr<const Device> device, EventKind kind);
  ~Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  EventHandle get() const noexcept { return handle_; }

 private:
  std::shared_ptr<const Device> device_;
  EventHandle handle_ = nullptr;
};

// A loaded cubin.
class Module {
 public:
  Module(std::shared_ptr<const Device> device, std::span<const std::byte> cubin);
  ~Module();
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;
  FunctionHandle function(const char* name) const;

 private:
  std::shared_ptr<const Device> device_;
  ModuleHandle handle_ = nullptr;
};

// Host memory pinned and mapped for every GPU of this process, until destroyed.
class PinnedRange {
 public:
  // DriverError if the memory cannot be pinned, the limit of locked memory for one.
  PinnedRange(std::shared_ptr<const Device> device, void* address, std::size_t num_bytes);
  ~PinnedRange();
  PinnedRange(const PinnedRange&) = delete;
  PinnedRange& operator=(const PinnedRange&) = delete;

 private:
  std::shared_ptr<const Device> device_;
  void* address_;
};

}  // namespace tiercel::cuda
