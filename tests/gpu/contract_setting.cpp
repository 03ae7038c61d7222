#include "tests/gpu/contract_setting.h"

#include "tests/gpu/device_oracle.h"
#include "tests/gpu/shares.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <thread>

namespace annulus::testing {

Setting::Setting(const OracleProblem& p, const TileGrid& grid, bool rounded_keys)
    : rounded(rounded_keys),
      cut(p.seq_kv / 2 + 3),
      launch(make_launch(p, {{0, 0, 1, cut}, {cut, cut, 1, p.seq_kv - cut}}, grid)),
      inputs(random_inputs(p, 23)),
      truth(device_oracle(p, inputs)),
      naive(device_naive(p, inputs)) {}

void Setting::expect_right(const DeviceRun& run) const {
  if (const double worst = shares_of(run.results(), truth, naive).worst(); !(worst <= 1.0)) {
    throw std::runtime_error("error of " + std::to_string(worst) + " bounds");
  }
}

void expect(bool condition, const char* what) {
  if (!condition) throw std::runtime_error(what);
}

void sleep() { std::this_thread::sleep_for(std::chrono::milliseconds(30)); }

void expect_end(const DeviceRun& run) {
  if (run.wait()) return;
  std::printf("FAIL the launch did not end\n");
  std::fflush(stdout);
  std::_Exit(1);
}

void both_passes(DeviceRun& run) {
  run.poison_results();
  run.forward_pass();
  run.backward_pass();
}

void load_code(DeviceRun& run) {
  both_passes(run);
  expect_end(run);
}

}  // namespace annulus::testing
