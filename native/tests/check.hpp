// The smallest test framework: TEST registers a test, CHECK reports a broken expectation with its place. Random tests
// take their seed from `seed()`, which the program prints and takes back in TIERCEL_TEST_SEED.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

namespace tiercel::testing {

struct Test {
  const char* name;
  void (*run)();
};

std::vector<Test>& tests();
std::uint64_t seed();

inline std::atomic<int> failures = 0;

struct Registration {
  Registration(const char* name, void (*run)()) { tests().push_back({name, run}); }
};

inline bool check(bool holds, const char* expectation, const char* file, int line) {
  if (!holds) {
    std::fprintf(stderr, "%s:%d: not true: %s\n", file, line, expectation);
    ++failures;
  }
  return holds;
}

// A directory of this test's own, removed with it.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::string& path() const noexcept { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace tiercel::testing

#define CHECK(expectation) ::tiercel::testing::check((expectation), #expectation, __FILE__, __LINE__)
#define CHECK_THROWS(exception, statement) \
  do {                                     \
    bool thrown = false;                   \
    try {                                  \
      statement;                           \
    } catch (const exception&) {           \
      thrown = true;                       \
    }                                      \
    CHECK(thrown&& #statement);            \
  } while (false)
#define TEST(name)                                                              \
  static void name();                                                           \
  static const ::tiercel::testing::Registration registered_##name{#name, name}; \
  static void name()
