// A long pass calls its pulse now and then. What the pulse throws ends the pass.
#pragma once

#include <cstddef>
#include <functional>

namespace tiercel {

using Pulse = std::function<void()>;

// Calls the pulse once for so many units of work.
class Pulses {
 public:
  explicit Pulses(const Pulse& pulse) : pulse_(pulse) {}
  void advance(std::size_t amount) {
    done_ += amount;
    if (done_ < kPulseAfter) return;
    done_ = 0;
    if (pulse_) pulse_();
  }

 private:
  static constexpr std::size_t kPulseAfter = std::size_t{1} << 22;  // references: some 50 ms
  const Pulse& pulse_;
  std::size_t done_ = 0;
};

}  // namespace tiercel
