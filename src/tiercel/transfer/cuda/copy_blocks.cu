// Gather and scatter of KV blocks between GPU memory and pinned host memory, which is reached at its own address.
// Compiled at run time by NVRTC for the GPU at hand (nvrtc.py), launched by native/core/cuda/copier.cpp.
//
// An engine's block is a list of equally long runs of bytes; a slot holds the same bytes in one piece. All runs of all
// blocks are numbered through in vectors of 1 to 16 bytes. A CTA takes tiles of 8 x 1024 vectors: each of its threads
// has eight loads under way before it stores the first, which is what hides the latency of PCIe with few CTAs.

using Address = unsigned long long;

// One run of a block. 32 bytes, read as two loads of 16.
struct alignas(16) Run {
  Address engine;          // in block 0
  long long block_stride;  // bytes from an engine's block to the next
  Address slot;            // offset in the slot
  Address unused;
};

// Division by a number known at launch, of numerators below 2^31: (n * multiplier) >> (32 + shift), or n for
// multiplier 0, which stands for a divisor of 1.
struct Divisor {
  unsigned value;
  unsigned multiplier;
  unsigned shift;
};

struct Work {
  const Run* runs;
  const long long* blocks;  // numbers of the engine's blocks
  const Address* slots;     // addresses of the slots
  unsigned num_vectors;
  Divisor vectors_per_run;
  Divisor runs_per_block;
};

constexpr unsigned kThreads = 1024;
constexpr unsigned kLoads = 8;

struct Place {
  Address engine;
  Address slot;
};

__device__ __forceinline__ unsigned divide(unsigned numerator, Divisor divisor) {
  return divisor.multiplier == 0 ? numerator : __umulhi(numerator, divisor.multiplier) >> divisor.shift;
}

__device__ __forceinline__ Place locate(const Work& work, unsigned vector, unsigned vector_bytes) {
  const unsigned run_number = divide(vector, work.vectors_per_run);
  const unsigned offset = (vector - run_number * work.vectors_per_run.value) * vector_bytes;
  const unsigned block = divide(run_number, work.runs_per_block);
  const Run* run = work.runs + (run_number - block * work.runs_per_block.value);
  const longlong2 engine = __ldg(reinterpret_cast<const longlong2*>(run));
  const Address slot_offset = __ldg(&run->slot);
  const long long engine_block = __ldg(work.blocks + block);
  const Address slot = __ldg(work.slots + block);
  return {static_cast<Address>(engine.x + engine_block * engine.y) + offset, slot + slot_offset + offset};
}

// Read once, past the first-level cache; the volatile keeps all loads ahead of the first store.
__device__ __forceinline__ void load(uint4& value, Address from) {
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "l"(from));
}
__device__ __forceinline__ void load(uint2& value, Address from) {
  asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0, %1}, [%2];" : "=r"(value.x), "=r"(value.y) : "l"(from));
}
__device__ __forceinline__ void load(unsigned& value, Address from) {
  asm volatile("ld.global.nc.L1::no_allocate.u32 %0, [%1];" : "=r"(value) : "l"(from));
}
__device__ __forceinline__ void load(unsigned short& value, Address from) {
  asm volatile("ld.global.nc.L1::no_allocate.u16 %0, [%1];" : "=h"(value) : "l"(from));
}
__device__ __forceinline__ void load(unsigned char& value, Address from) {
  unsigned short wide;
  asm volatile("ld.global.nc.L1::no_allocate.u8 %0, [%1];" : "=h"(wide) : "l"(from));
  value = static_cast<unsigned char>(wide);
}

template <typename Vector>
__device__ __forceinline__ void store(Address to, Vector value) {
  __stcs(reinterpret_cast<Vector*>(to), value);  // not to be read again soon by this GPU's cores
}

// One tile. kFull: it has no vector past the end, so its loads need no branches between them.
template <typename Vector, bool kToSlots, bool kFull>
__device__ __forceinline__ void copy_tile(const Work& work, unsigned first) {
  constexpr unsigned kBytes = sizeof(Vector);
  Vector values[kLoads];
#pragma unroll
  for (unsigned i = 0; i < kLoads; ++i) {
    const unsigned vector = first + i * kThreads;
    if (kFull || vector < work.num_vectors) {
      const Place place = locate(work, vector, kBytes);
      load(values[i], kToSlots ? place.engine : place.slot);
    }
  }
  // Where a vector goes is worked out again rather than kept: 64 registers a thread are all there are.
#pragma unroll
  for (unsigned i = 0; i < kLoads; ++i) {
    const unsigned vector = first + i * kThreads;
    if (kFull || vector < work.num_vectors) {
      const Place place = locate(work, vector, kBytes);
      store(kToSlots ? place.slot : place.engine, values[i]);
    }
  }
}

template <typename Vector, bool kToSlots>
__device__ __forceinline__ void copy(const Work& work) {
  constexpr unsigned kTile = kThreads * kLoads;
  for (unsigned tile = blockIdx.x * kTile; tile < work.num_vectors; tile += gridDim.x * kTile) {
    const unsigned first = tile + threadIdx.x;
    if (work.num_vectors - tile >= kTile) {
      copy_tile<Vector, kToSlots, true>(work, first);
    } else {
      copy_tile<Vector, kToSlots, false>(work, first);
    }
  }
}

#define TIERCEL_KERNELS(bytes, Vector)                                                                             \
  extern "C" __global__ void __launch_bounds__(kThreads) gather_##bytes(const Work work) { copy<Vector, true>(work); } \
  extern "C" __global__ void __launch_bounds__(kThreads) scatter_##bytes(const Work work) { copy<Vector, false>(work); }

TIERCEL_KERNELS(16, uint4)
TIERCEL_KERNELS(8, uint2)
TIERCEL_KERNELS(4, unsigned)
TIERCEL_KERNELS(2, unsigned short)
TIERCEL_KERNELS(1, unsigned char)
