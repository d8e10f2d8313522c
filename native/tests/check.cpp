#include "check.hpp"

#include <unistd.h>

#include <cstdlib>
#include <random>
#include <stdexcept>

namespace tiercel::testing {

std::vector<Test>& tests() {
  static std::vector<Test> registered;
  return registered;
}

std::uint64_t seed() {
  static const std::uint64_t value = [] {
    const char* given = std::getenv("TIERCEL_TEST_SEED");
    return given != nullptr ? std::strtoull(given, nullptr, 10) : std::uint64_t{std::random_device{}()};
  }();
  return value;
}

TemporaryFolder::TemporaryFolder() : path_((std::filesystem::temp_directory_path() / "tiercel-test-XXXXXX").string()) {
  if (::mkdtemp(path_.data()) == nullptr) throw std::runtime_error("cannot make a temporary folder");
}

}  // namespace tiercel::testing
