#pragma once

#include "tests/gpu/device_run.h"
#include "tests/support/launch.h"
#include "tests/support/oracle.h"

#include <cstdint>

// What cases of the contract (contract_cases.h) run, and how they say what they expect.
namespace annulus::testing {

/// A problem whose keys are two segments, and its truth.
struct Setting {
  Setting(const OracleProblem& p, const TileGrid& grid, bool rounded_keys);
  bool rounded;  ///< DeviceRun's
  std::int64_t cut;
  TestLaunch launch;
  OracleInputs inputs;
  OracleResult truth, naive;

  void expect_right(const DeviceRun& run) const;
};

/// Throws std::runtime_error.
void expect(bool condition, const char* what);
/// Long enough for a launch that waits for nothing to be over.
void sleep();
/// A stream that hangs cannot be destroyed either: the program ends.
void expect_end(const DeviceRun& run);

void both_passes(DeviceRun& run);
/// A launch that loads its code waits for the whole context, so the merge behind a split launch
/// that waits for a flag would never be enqueued. Plans load theirs when they are bound.
void load_code(DeviceRun& run);

}  // namespace annulus::testing
