// The smallest test framework: CHECK reports a broken expectation with its place, and `failures` is main's exit code.
#pragma once

#include <cstdio>

namespace tiercel::testing {

inline int failures = 0;

inline bool check(bool holds, const char* expectation, const char* file, int line) {
  if (!holds) {
    std::fprintf(stderr, "%s:%d: not true: %s\n", file, line, expectation);
    ++failures;
  }
  return holds;
}

}  // namespace tiercel::testing

#define CHECK(expectation) ::tiercel::testing::check((expectation), #expectation, __FILE__, __LINE__)
