// Which instruction sets this processor and operating system offer, asked once at run time.
#pragma once

namespace tiercel {

struct CpuFeatures {
  bool sha_ni;
  bool avx2;
  bool avx512f;
};

const CpuFeatures& cpu_features() noexcept;

}  // namespace tiercel
