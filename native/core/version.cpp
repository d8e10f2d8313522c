#include "version.hpp"

namespace tiercel {
bool built_with_io_uring() noexcept {
#ifdef TIERCEL_HAVE_LIBURING
  return true;
#else
  return false;
#endif
}
}  // namespace tiercel
