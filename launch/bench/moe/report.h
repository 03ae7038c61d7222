#pragma once

#include "launch/bench/check.h"
#include "launch/bench/measure.h"
#include "launch/request/moe.h"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace annulus::launch {

/// What `bench` found out about a mixture of experts: a part of op layer's report, all of op moe's.
struct MoeReport {
  MoeRequest request;
  int world = 1;
  std::string backend = "cpu";
  std::string transport, device, kernel, command_line, mpi;
  std::optional<Timing> forward, backward;
  std::optional<Timing> balanced_forward, balanced_backward;  ///< none: it was balanced
  std::optional<Timing> kept_forward, kept_backward;  ///< a router's routing, given: without it
  std::vector<std::int64_t> forward_flops, backward_flops;  ///< executed, by rank
  std::vector<std::int64_t> forward_bytes, backward_bytes;  ///< sent, by rank
  std::vector<std::int64_t> expert_rows;                    ///< of all groups
  std::vector<std::int64_t> rank_rows;                      ///< by rank of the world
  std::vector<std::int64_t> rank_tokens;                    ///< by rank of the world
  std::int64_t dropped = 0, bad_tokens = 0;
  std::int64_t rounds = 1;
  bool sent_tokens = false;
  double exposed_s = 0;
  std::int64_t capacity_rows = 0;
  std::int64_t planned_peak_bytes = 0, measured_peak_bytes = 0;
  std::optional<CheckReport> check;

  /// Over the balanced routing's median, without a router's time; none without one.
  std::optional<double> forward_slowdown() const;
  std::optional<double> backward_slowdown() const;
  bool passed() const { return !check || check->passed(); }
  double expert_max_over_mean() const;
  double rank_max_over_mean() const;
};

double tflops_per_rank(const std::optional<Timing>& timing, const std::vector<std::int64_t>& flops);

std::string to_text(const MoeReport& report);
/// annulus.bench/1 with op moe.
std::string to_json(const MoeReport& report);
/// The objects `moe_problem`, `timing` ... of op layer's report: JSON text of one object.
std::string moe_json(const MoeReport& report);

}  // namespace annulus::launch
