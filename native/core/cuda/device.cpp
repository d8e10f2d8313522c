#include "cuda/device.hpp"

#include <array>
#include <thread>

namespace tiercel::cuda {
namespace {

constexpr unsigned kNonBlocking = 1;    // CU_STREAM_NON_BLOCKING
constexpr unsigned kBlockingSync = 1;   // CU_EVENT_BLOCKING_SYNC
constexpr unsigned kDisableTiming = 2;  // CU_EVENT_DISABLE_TIMING
constexpr unsigned kPortable = 1;       // CU_MEMHOST{ALLOC,REGISTER}_PORTABLE
constexpr unsigned kDeviceMap = 2;      // CU_MEMHOST{ALLOC,REGISTER}_DEVICEMAP
constexpr Result kNotReady = 600;       // CUDA_ERROR_NOT_READY
constexpr std::chrono::microseconds kNap{500};

}  // namespace

Device::Device(int ordinal) : ordinal_(ordinal) {
  const Driver& cuda = driver();
  int count = 0;
  check(cuda.DeviceGetCount(&count), "cuDeviceGetCount");
  if (ordinal < 0 || ordinal >= count) {
    throw std::invalid_argument("CUDA device " + std::to_string(ordinal) + ": this process sees " +
                                std::to_string(count));
  }
  check(cuda.DeviceGet(&device_, ordinal), "cuDeviceGet");
  check(cuda.DevicePrimaryCtxRetain(&context_, device_), "cuDevicePrimaryCtxRetain");
}

Device::~Device() { driver().DevicePrimaryCtxRelease(device_); }

std::string Device::name() const {
  std::array<char, 256> text{};
  check(driver().DeviceGetName(text.data(), static_cast<int>(text.size()), device_), "cuDeviceGetName");
  return text.data();
}

std::size_t Device::memory_bytes() const {
  std::size_t num_bytes = 0;
  check(driver().DeviceTotalMem(&num_bytes, device_), "cuDeviceTotalMem");
  return num_bytes;
}

int Device::attribute(int number) const {
  int value = 0;
  check(driver().DeviceGetAttribute(&value, number, device_), "cuDeviceGetAttribute");
  return value;
}

bool Device::wait_event(EventHandle event, std::chrono::duration<double> timeout) const {
  const ContextScope scope(*this);
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  for (;;) {
    const Result result = driver().EventQuery(event);
    if (result != kNotReady) {
      check(result, "cuEventQuery");
      return true;
    }
    if (std::chrono::steady_clock::now() >= deadline) return false;
    std::this_thread::sleep_for(kNap);
  }
}

Stream::Stream(std::shared_ptr<const Device> device, Priority priority) : device_(std::move(device)) {
  const ContextScope scope(*device_);
  int least = 0;
  int greatest = 0;
  check(driver().CtxGetStreamPriorityRange(&least, &greatest), "cuCtxGetStreamPriorityRange");
  const int number = priority == Priority::kGreatest ? greatest : least;
  check(driver().StreamCreateWithPriority(&handle_, kNonBlocking, number), "cuStreamCreateWithPriority");
}

Stream::~Stream() {
  in_context(*device_, [this] {
    driver().StreamSynchronize(handle_);
    driver().StreamDestroy(handle_);
  });
}

Event::Event(std::shared_ptr<const Device> device, EventKind kind) : device_(std::move(device)) {
  const ContextScope scope(*device_);
  check(driver().EventCreate(&handle_, kind == EventKind::kTimed ? kBlockingSync : kDisableTiming), "cuEventCreate");
}

Event::~Event() {
  in_context(*device_, [this] { driver().EventDestroy(handle_); });
}

Module::Module(std::shared_ptr<const Device> device, std::span<const std::byte> cubin) : device_(std::move(device)) {
  const ContextScope scope(*device_);
  check(driver().ModuleLoadDataEx(&handle_, cubin.data(), 0, nullptr, nullptr), "cuModuleLoadDataEx");
}

Module::~Module() {
  in_context(*device_, [this] { driver().ModuleUnload(handle_); });
}

FunctionHandle Module::function(const char* name) const {
  const ContextScope scope(*device_);
  FunctionHandle found = nullptr;
  check(driver().ModuleGetFunction(&found, handle_, name), "cuModuleGetFunction");
  return found;
}

PinnedRange::PinnedRange(std::shared_ptr<const Device> device, void* address, std::size_t num_bytes)
    : device_(std::move(device)), address_(address) {
  const ContextScope scope(*device_);
  check(driver().MemHostRegister(address_, num_bytes, kPortable | kDeviceMap), "cuMemHostRegister");
}

PinnedRange::~PinnedRange() {
  in_context(*device_, [this] { driver().MemHostUnregister(address_); });
}

}  // namespace tiercel::cuda
