#include "version.hpp"

#include "check.hpp"

TEST(the_build_says_that_it_has_io_uring_exactly_when_cmake_found_it) {
#ifdef TIERCEL_TEST_EXPECTS_LIBURING
  CHECK(tiercel::built_with_io_uring());
#else
  CHECK(!tiercel::built_with_io_uring());
#endif
}
