#pragma once

#include <stdexcept>

namespace annulus::launch {

/// What the process returns. Scripts rely on these (docs/errors.md).
enum ExitCode : int { kPassed = 0, kCheckFailed = 1, kUsage = 2, kRuntime = 3 };

/// The command was called wrongly: exit 2. One line that names the option as it was typed, the
/// value, and what is allowed.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace annulus::launch
