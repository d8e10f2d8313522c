// What this build of the core can do, as decided at compile time.
#pragma once

namespace tiercel {
bool built_with_io_uring() noexcept;
}
