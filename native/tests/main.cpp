// Runs the registered tests whose names contain the argument, all without one. Returns non-zero if one failed.
#include <chrono>
#include <cstring>
#include <exception>

#include "check.hpp"

int main(int count, char** words) {
  using namespace tiercel::testing;
  std::printf("TIERCEL_TEST_SEED=%llu\n", static_cast<unsigned long long>(seed()));
  int num_run = 0;
  for (const Test& test : tests()) {
    if (count > 1 && std::strstr(test.name, words[1]) == nullptr) continue;
    const int failures_before = failures;
    const auto started = std::chrono::steady_clock::now();
    try {
      test.run();
    } catch (const std::exception& error) {
      std::fprintf(stderr, "%s: threw: %s\n", test.name, error.what());
      ++failures;
    }
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - started;
    std::printf("%s %s (%.2f s)\n", failures == failures_before ? "passed" : "FAILED", test.name, seconds.count());
    ++num_run;
  }
  std::printf("%d tests, %d failures\n", num_run, failures.load());
  return num_run == 0 || failures != 0 ? 1 : 0;
}
