#pragma once

#include "launch/bench/suites/suite.h"

#include <annulus/annulus.h>

#include <cstdint>
#include <string>
#include <vector>

namespace annulus::launch {

/// One head, f32, full mask.
struct ClassicShape {
  std::int64_t batch = 1;
  std::int64_t seq = 0;
  std::int64_t dim = 0;

  std::string name() const;  ///< "2x512x64"
  std::int64_t output_bytes() const { return batch * seq * dim * 4; }
  std::int64_t lse_bytes() const { return batch * seq * 4; }
};

/// One kernel on one shape.
struct ClassicRow {
  ClassicShape shape{};
  std::string kernel{};
  std::int64_t warmups = 0;
  std::int64_t calls = 0;
  double mean_s = 0;
  double median_s = 0;
  double min_s = 0;
  LocalCounters counters{};
  double rel_err = 0;  ///< max|out - ref| / max|ref| over the rows compared
  std::int64_t rows_compared = 0;

  /// Temporaries and output; the LSE is apart.
  std::int64_t memory_bytes() const { return counters.materialized_bytes + shape.output_bytes(); }
};

struct ClassicRun {
  std::vector<ClassicRow> rows{};  ///< shape by shape, kernels in the same order
  int threads = 1;
  double load_average = 0;  ///< before the first call
  std::string command_line{};
  std::string device{};
  double bound = 0;  ///< of rel_err
};

/// The row of `kernel` on the shape of `row`; null where it did not run.
const ClassicRow* row_of(const ClassicRun& run, const ClassicRow& row, std::string_view kernel);
/// Share of naive's bytes that a row saves; 0 without naive.
double saved(const ClassicRun& run, const ClassicRow& row);

SuiteReport report_of(const ClassicRun& run);

}  // namespace annulus::launch
