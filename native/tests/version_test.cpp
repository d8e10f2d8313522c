#include "version.hpp"

#include "check.hpp"

// The build says how it was configured: with liburing exactly when CMake found it.
int main() {
#ifdef TIERCEL_TEST_EXPECTS_LIBURING
  CHECK(tiercel::built_with_io_uring());
#else
  CHECK(!tiercel::built_with_io_uring());
#endif
  return tiercel::testing::failures;
}
