// libcuda, opened at run time: what we call of NVIDIA's driver, so that one build runs with and without a GPU.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace tiercel::cuda {

// Types of the driver's interface, as its ABI has them. No CUDA header is needed to build.
using Result = int;
using DevicePointer = std::uint64_t;
using ContextHandle = void*;
using StreamHandle = void*;
using EventHandle = void*;
using ModuleHandle = void*;
using FunctionHandle = void*;
using PoolHandle = void*;

struct MemoryLocation {
  int type;
  int id;
};

struct PoolProperties {
  int allocation_type;
  int handle_types;
  MemoryLocation location;
  void* security_attributes;
  std::size_t max_bytes;
  std::uint8_t reserved[64];
};

struct BatchAttributes {
  int source_access_order;
  MemoryLocation source_hint;
  MemoryLocation target_hint;
  unsigned flags;
};

// No driver, or one that is too old: the message names what was found and what to do.
class DriverMissing : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The driver refused or failed a call.
class DriverError : public std::runtime_error {
 public:
  DriverError(Result result, const std::string& message) : std::runtime_error(message), result_(result) {}
  Result result() const noexcept { return result_; }

 private:
  Result result_;
};

// The driver's functions by their names in its manual, with `cu` left off. All but the last are always there.
struct Driver {
  int version;  // 12080 for 12.8

  Result (*DeviceGet)(int* device, int ordinal);
  Result (*DeviceGetCount)(int* count);
  Result (*DeviceGetName)(char* name, int length, int device);
  Result (*DeviceTotalMem)(std::size_t* num_bytes, int device);
  Result (*DeviceGetAttribute)(int* value, int attribute, int device);
  Result (*DevicePrimaryCtxRetain)(ContextHandle* context, int device);
  Result (*DevicePrimaryCtxRelease)(int device);
  Result (*CtxPushCurrent)(ContextHandle context);
  Result (*CtxPopCurrent)(ContextHandle* context);
  Result (*CtxGetStreamPriorityRange)(int* least, int* greatest);
  Result (*ModuleLoadDataEx)(ModuleHandle* module, const void* image, unsigned num_options, int* options,
                             void** values);
  Result (*ModuleUnload)(ModuleHandle module);
  Result (*ModuleGetFunction)(FunctionHandle* function, ModuleHandle module, const char* name);
  Result (*LaunchKernel)(FunctionHandle function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                         unsigned block_y, unsigned block_z, unsigned shared_bytes, StreamHandle stream,
                         void** parameters, void** extra);
  Result (*MemPoolCreate)(PoolHandle* pool, const PoolProperties* properties);
  Result (*MemPoolDestroy)(PoolHandle pool);
  Result (*MemPoolSetAttribute)(PoolHandle pool, int attribute, void* value);
  Result (*MemPoolGetAttribute)(PoolHandle pool, int attribute, void* value);
  Result (*MemAllocFromPoolAsync)(DevicePointer* pointer, std::size_t num_bytes, PoolHandle pool, StreamHandle stream);
  Result (*MemFreeAsync)(DevicePointer pointer, StreamHandle stream);
  Result (*MemHostAlloc)(void** pointer, std::size_t num_bytes, unsigned flags);
  Result (*MemFreeHost)(void* pointer);
  Result (*MemHostRegister)(void* pointer, std::size_t num_bytes, unsigned flags);
  Result (*MemHostUnregister)(void* pointer);
  Result (*MemcpyAsync)(DevicePointer target, DevicePointer source, std::size_t num_bytes, StreamHandle stream);
  Result (*StreamCreateWithPriority)(StreamHandle* stream, unsigned flags, int priority);
  Result (*StreamDestroy)(StreamHandle stream);
  Result (*StreamSynchronize)(StreamHandle stream);
  Result (*StreamWaitEvent)(StreamHandle stream, EventHandle event, unsigned flags);
  Result (*EventCreate)(EventHandle* event, unsigned flags);
  Result (*EventDestroy)(EventHandle event);
  Result (*EventQuery)(EventHandle event);
  Result (*EventRecord)(EventHandle event, StreamHandle stream);
  Result (*EventSynchronize)(EventHandle event);
  Result (*EventElapsedTime)(float* milliseconds, EventHandle start, EventHandle stop);
  Result (*GetErrorName)(Result result, const char** name);
  Result (*GetErrorString)(Result result, const char** text);

  // Driver 12.8 and newer, else null.
  Result (*MemcpyBatchAsync)(DevicePointer* targets, DevicePointer* sources, std::size_t* sizes, std::size_t count,
                             BatchAttributes* attributes, std::size_t* attribute_indices, std::size_t num_attributes,
                             std::size_t* failed_index, StreamHandle stream);
};

// The driver, opened and initialised on the first call. DriverMissing if there is none that can be used.
const Driver& driver();

// DriverError that names the call, unless it succeeded.
void check(Result result, const char* call);

}  // namespace tiercel::cuda
