#include "runtime/cost/latency/operators.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace annulus {
namespace {

constexpr double kGiB = 1073741824.0;
constexpr double kStart = 5e-6;  ///< of a collective

struct PrecisionRow {
  std::string_view name;
  int bits;
  double weight;
};
constexpr std::array<PrecisionRow, 8> kPrecisions{{{"f32", 32, 2.0},
                                                   {"bf16", 16, 1.0},
                                                   {"int8", 8, 0.5},
                                                   {"fp8", 8, 0.5},
                                                   {"fp6", 6, 0.5},
                                                   {"int4", 4, 0.25},
                                                   {"fp4", 4, 0.25},
                                                   {"int2", 2, 0.125}}};

const PrecisionRow& row_of(Precision precision) {
  return kPrecisions.at(static_cast<std::size_t>(precision));
}

}  // namespace

std::string_view name_of(Precision precision) { return row_of(precision).name; }
int bits_of(Precision precision) { return row_of(precision).bits; }
double compute_weight(Precision precision) { return row_of(precision).weight; }

Precision parse_precision(std::string_view text) {
  std::string allowed;
  for (std::size_t i = 0; i < kPrecisions.size(); ++i) {
    if (text == kPrecisions[i].name) return static_cast<Precision>(i);
    allowed += fmt::format("{}{}", i == 0 ? "" : ", ", kPrecisions[i].name);
  }
  throw InvalidArgument(fmt::format("precision '{}': must be one of {}", text, allowed));
}

std::string_view name_of(OperatorKind kind) {
  constexpr std::array<std::string_view, 4> kNames{"gemm", "logit", "attend", "sync"};
  return kNames.at(static_cast<std::size_t>(kind));
}

std::string_view name_of(DimsRule rule) { return rule == DimsRule::model ? "model" : "genz"; }

std::string_view name_of(Bound bound) {
  constexpr std::array<std::string_view, 4> kNames{"none", "compute", "memory", "communication"};
  return kNames.at(static_cast<std::size_t>(bound));
}

double collective_seconds(Collective collective, std::int64_t ranks, double bytes,
                          const SystemRates& system) {
  const double rate = system.link_gib_s * kGiB;
  const double latency = system.link_latency_us * 1e-6;
  if (bytes <= 0) return 0;
  if (collective == Collective::message_pass) return latency + bytes / rate;
  if (ranks <= 1) return 0;
  const double hops = static_cast<double>(ranks - 1);
  const double sweep = hops * latency + hops * (bytes / static_cast<double>(ranks)) / rate;
  return kStart + (collective == Collective::all_reduce ? 2 * sweep : sweep);
}

double OperatorRow::latency_s() const { return std::max({compute_s, memory_s, comm_s}); }

Bound OperatorRow::bound() const {
  const double longest = latency_s();
  if (longest <= 0) return Bound::none;
  if (longest == compute_s) return Bound::compute;
  return longest == memory_s ? Bound::memory : Bound::communication;
}

namespace cost {

double bytes_of(std::int64_t elements, Precision precision) {
  return static_cast<double>(elements) * bits_of(precision) / 8;
}

void time_row(OperatorRow& row, const LatencyRequest& request, double memory_gib_s) {
  const SystemRates& system = request.system;
  if (row.kind == OperatorKind::sync) {
    row.comm_s = collective_seconds(row.collective, row.ranks,
                                    bytes_of(row.sent_elements, request.precision), system);
    return;
  }
  row.compute_s = static_cast<double>(row.macs) * compute_weight(request.precision) /
                  (system.tflops * 1e12 / 2) / system.efficiency;
  if (row.macs == 0) return;  // nothing computed, nothing read
  double seconds = bytes_of(row.weight_elements, request.precision) / (memory_gib_s * kGiB);
  const auto move = [&](std::int64_t elements, bool on_chip) {
    seconds += bytes_of(elements, request.precision) /
               ((on_chip ? system.onchip_gib_s : memory_gib_s) * kGiB);
  };
  move(row.input_elements, row.input_on_chip);
  move(row.output_elements, row.output_on_chip);
  row.memory_s = seconds / system.efficiency;
}

}  // namespace cost
}  // namespace annulus
