#include "cuda/driver.hpp"

#include <dlfcn.h>

namespace tiercel::cuda {
namespace {

constexpr int kOldestVersion = 12000;
constexpr int kBatchVersion = 12080;  // of the form of cuMemcpyBatchAsync that we call; newer drivers keep it

using GetProcAddress = Result (*)(const char* symbol, void** function, int version, std::uint64_t flags, int* status);

constexpr const char* kRemedy =
    "; install NVIDIA's driver 525 (CUDA 12.0) or newer, in a container with --gpus or the NVIDIA runtime";

template <typename Function>
bool find(GetProcAddress get, const char* name, int version, Function& function) {
  void* found = nullptr;
  int status = 0;
  if (get(name, &found, version, 0, &status) != 0 || found == nullptr) return false;
  function = reinterpret_cast<Function>(found);
  return true;
}

template <typename Function>
void require(GetProcAddress get, const char* name, Function& function) {
  if (find(get, name, kOldestVersion, function)) return;
  throw DriverMissing(std::string("libcuda.so.1 has no ") + name + kRemedy);
}

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

int initialise(void* library) {
  const auto init = reinterpret_cast<Result (*)(unsigned)>(::dlsym(library, "cuInit"));
  const auto get_version = reinterpret_cast<Result (*)(int*)>(::dlsym(library, "cuDriverGetVersion"));
  int version = 0;
  if (init == nullptr || get_version == nullptr || get_version(&version) != 0) {
    throw DriverMissing(std::string("libcuda.so.1 is no CUDA driver") + kRemedy);
  }
  if (version < kOldestVersion) {
    throw DriverMissing("the NVIDIA driver speaks CUDA " + version_text(version) + ", 12.0 is needed" + kRemedy);
  }
  if (const Result result = init(0); result != 0) {
    throw DriverMissing("the NVIDIA driver (CUDA " + version_text(version) + ") cannot be used: cuInit answers error " +
                        std::to_string(result) + (result == 100 ? " (no GPU is visible)" : ""));
  }
  return version;
}

Driver load() {
  void* library = ::dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);  // never closed: its threads outlive any handle
  if (library == nullptr) {
    const char* reason = ::dlerror();
    throw DriverMissing(std::string("no NVIDIA driver: ") + (reason != nullptr ? reason : "libcuda.so.1") + kRemedy);
  }
  Driver found{};
  found.version = initialise(library);
  const auto get = reinterpret_cast<GetProcAddress>(::dlsym(library, "cuGetProcAddress_v2"));
  if (get == nullptr) throw DriverMissing(std::string("libcuda.so.1 has no cuGetProcAddress_v2") + kRemedy);
#define TIERCEL_REQUIRE(name) require(get, "cu" #name, found.name)
  TIERCEL_REQUIRE(DeviceGet);
  TIERCEL_REQUIRE(DeviceGetCount);
  TIERCEL_REQUIRE(DeviceGetName);
  TIERCEL_REQUIRE(DeviceTotalMem);
  TIERCEL_REQUIRE(DeviceGetAttribute);
  TIERCEL_REQUIRE(DevicePrimaryCtxRetain);
  TIERCEL_REQUIRE(DevicePrimaryCtxRelease);
  TIERCEL_REQUIRE(CtxPushCurrent);
  TIERCEL_REQUIRE(CtxPopCurrent);
  TIERCEL_REQUIRE(CtxGetStreamPriorityRange);
  TIERCEL_REQUIRE(ModuleLoadDataEx);
  TIERCEL_REQUIRE(ModuleUnload);
  TIERCEL_REQUIRE(ModuleGetFunction);
  TIERCEL_REQUIRE(LaunchKernel);
  TIERCEL_REQUIRE(MemPoolCreate);
  TIERCEL_REQUIRE(MemPoolDestroy);
  TIERCEL_REQUIRE(MemPoolSetAttribute);
  TIERCEL_REQUIRE(MemPoolGetAttribute);
  TIERCEL_REQUIRE(MemAllocFromPoolAsync);
  TIERCEL_REQUIRE(MemFreeAsync);
  TIERCEL_REQUIRE(MemHostAlloc);
  TIERCEL_REQUIRE(MemFreeHost);
  TIERCEL_REQUIRE(MemHostRegister);
  TIERCEL_REQUIRE(MemHostUnregister);
  TIERCEL_REQUIRE(MemcpyAsync);
  TIERCEL_REQUIRE(StreamCreateWithPriority);
  TIERCEL_REQUIRE(StreamDestroy);
  TIERCEL_REQUIRE(StreamSynchronize);
  TIERCEL_REQUIRE(StreamWaitEvent);
  TIERCEL_REQUIRE(EventCreate);
  TIERCEL_REQUIRE(EventDestroy);
  TIERCEL_REQUIRE(EventQuery);
  TIERCEL_REQUIRE(EventRecord);
  TIERCEL_REQUIRE(EventSynchronize);
  TIERCEL_REQUIRE(EventElapsedTime);
  TIERCEL_REQUIRE(GetErrorName);
  TIERCEL_REQUIRE(GetErrorString);
#undef TIERCEL_REQUIRE
  if (found.version < kBatchVersion || !find(get, "cuMemcpyBatchAsync", kBatchVersion, found.MemcpyBatchAsync)) {
    found.MemcpyBatchAsync = nullptr;
  }
  return found;
}

}  // namespace

const Driver& driver() {
  static const Driver loaded = load();  // tried again by the next call if it throws
  return loaded;
}

void check(Result result, const char* call) {
  if (result == 0) return;
  const char* name = nullptr;
  const char* text = nullptr;
  driver().GetErrorName(result, &name);
  driver().GetErrorString(result, &text);
  throw DriverError(result, std::string(call) + ": " + (name != nullptr ? name : std::to_string(result)) + " (" +
                                (text != nullptr ? text : "unknown error") + ")");
}

}  // namespace tiercel::cuda
