// memcpy for the copies of this library: many runs of 64 bytes to megabytes that together may exceed every cache.
#pragma once

#include <cstddef>
#include <cstring>

namespace tiercel {

// How the bytes of one call are stored. Streaming stores go past the caches: they save reading each target line before
// it is overwritten, which pays once the call moves more than the caches hold, and not before.
enum class StoreKind { kCached, kStreaming };

StoreKind choose_store_kind(std::size_t num_bytes_of_call) noexcept;

// Source and target may not overlap. `next` is what the caller reads after this, fetched ahead while the end of this
// run is copied: the processor's own prefetcher starts anew at every run. Any address will do.
void stream_bytes(std::byte* target, const std::byte* source, std::size_t num_bytes, const std::byte* next) noexcept;

inline void copy_bytes(std::byte* target, const std::byte* source, std::size_t num_bytes, const std::byte* next,
                       StoreKind kind) noexcept {
  constexpr std::size_t kStreamedRun =
      1024;  // below it the lines at both ends, stored through the cache, weigh too much
  if (kind == StoreKind::kStreaming && num_bytes >= kStreamedRun) return stream_bytes(target, source, num_bytes, next);
  std::memcpy(target, source, num_bytes);
}

// After the last streaming store of a thread, so that other threads may read the targets.
void finish_stores(StoreKind kind) noexcept;

}  // namespace tiercel
