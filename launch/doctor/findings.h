#pragma once

#include <string>
#include <vector>

namespace annulus::launch {

/// One line of the report: what, and what was found.
struct Finding {
  std::string key;    ///< of the JSON: "memory_total_bytes"
  std::string label;  ///< of the table: "memory"
  std::string value;
};

/// What is not there, and how to get it.
struct Missing {
  std::string what;
  std::string advice;
};

struct Findings {
  std::vector<Finding> lines;
  std::vector<Missing> missing;

  void add(std::string key, std::string label, std::string value) {
    lines.push_back({std::move(key), std::move(label), std::move(value)});
  }
};

// Each adds what it sees.
void find_cpu(Findings& findings);
void find_memory_and_limits(Findings& findings);
void find_mpi(Findings& findings);
void find_gpus(Findings& findings);
void find_counters(Findings& findings);

}  // namespace annulus::launch
