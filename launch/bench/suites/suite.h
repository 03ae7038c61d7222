#pragma once

#include "launch/command.h"
#include "launch/output.h"

#include <string>
#include <string_view>

namespace annulus::launch {

/// What a suite hands over: the three forms of one report.
struct SuiteReport {
  std::string text, json, svg;
  bool passed = true;
};

/// The files that `json` and `svg` name, found writable before any compute. For one process.
class SuiteOutputs {
 public:
  explicit SuiteOutputs(const Settings& settings);
  /// Prints and writes; returns the exit code.
  int publish(const SuiteReport& report);

 private:
  bool quiet_;
  OutputFile json_;
  OutputFile svg_;
};

/// `key` takes `value` unless somebody gave one.
void prefer(Settings& settings, std::string_view key, std::string_view value);

/// Processes that wanted to run in the last minute: others at work make the clock say little.
double load_average();

/// bench --suite accounting: one prefill on 1, 2, 4 ... ranks, beside what each accounting
/// predicts.
int run_accounting_suite(const Call& call);
/// bench --op local --suite classic: naive, flash1 and flash2 over the classic shapes.
int run_classic_suite(const Call& call);

}  // namespace annulus::launch
