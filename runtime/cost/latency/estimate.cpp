#include "runtime/cost/count.h"
#include "runtime/cost/latency/operators.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace annulus {
namespace {

constexpr double kGiB = 1073741824.0;

/// Bandwidth when what does not fit streams from the host beside the rest.
double offloaded_rate(const SystemRates& system, double needed_gib) {
  const double here = std::min(needed_gib, system.memory_gib) / system.memory_gib_s;
  const double there = (needed_gib - system.memory_gib) / system.host_gib_s;
  return needed_gib / std::max(here, there);
}

void count(LatencyReport& report) {
  const Precision precision = report.request.precision;
  for (const OperatorRow& row : report.rows) {
    const std::int64_t macs = cost::times(row.repeat, row.macs);
    const double bytes =
        static_cast<double>(row.repeat) * cost::bytes_of(row.weight_elements, precision);
    report.macs = cost::plus(report.macs, macs);
    if (row.is_attention()) {
      report.attention_macs = cost::plus(report.attention_macs, macs);
      report.cache_bytes += bytes;
    } else {
      report.weight_bytes += bytes;
    }
  }
}

void fit(LatencyReport& report) {
  const LatencyRequest& r = report.request;
  const double needed =
      (report.weight_bytes + report.cache_bytes) / static_cast<double>(r.pp) / kGiB;
  report.fits = needed <= r.system.memory_gib;
  report.offloaded = !report.fits && r.offload;
  report.memory_gib_s = report.offloaded ? offloaded_rate(r.system, needed) : r.system.memory_gib_s;
}

void time(LatencyReport& report) {
  for (OperatorRow& row : report.rows) {
    cost::time_row(row, report.request, report.memory_gib_s);
    const auto repeat = static_cast<double>(row.repeat);
    const double seconds = repeat * row.latency_s();
    report.latency_s += seconds;
    if (row.is_attention()) report.attention_s += seconds;
    if (row.kind == OperatorKind::gemm) report.linear_s += seconds;
    report.comm_s += repeat * row.comm_s;
    report.compute_only_s += repeat * row.compute_s;
    report.memory_only_s += repeat * row.memory_s;
  }
}

/// GenZ counts an entry of a chunked step as one token, even where it stands for several requests.
double produced(const LatencyRequest& r) {
  if (r.stage != Stage::chunked) return static_cast<double>(r.batch);
  auto tokens = static_cast<double>(r.decodes.size());
  for (const PrefillChunk& chunk : r.chunks) tokens += static_cast<double>(chunk.fresh);
  return tokens;
}

}  // namespace

LatencyReport estimate_latency(const LatencyRequest& request) {
  cost::validate(request);
  LatencyReport report;
  report.request = request;
  report.micro_batch = std::max<std::int64_t>(1, request.batch / request.pp);
  report.rows = cost::operators_of(request, report.micro_batch);
  count(report);
  fit(report);
  time(report);
  if (report.latency_s > 0) report.throughput_per_s = produced(request) / report.latency_s;
  return report;
}

namespace cost {
namespace {

void at_least(std::string_view name, std::int64_t value, std::int64_t least) {
  if (value < least) {
    throw InvalidArgument(fmt::format("{} {}: must be at least {}", name, value, least));
  }
}

void above_zero(std::string_view name, double value) {
  if (!std::isfinite(value) || value <= 0) {
    throw InvalidArgument(fmt::format("{} {}: must be finite and above 0", name, value));
  }
}

void validate_model(const ModelShape& m) {
  at_least("hidden", m.hidden, 1);
  at_least("heads", m.heads, 1);
  at_least("heads_kv", m.heads_kv, 1);
  at_least("head_dim", m.head_dim, 1);
  at_least("ffn", m.ffn, 1);
  at_least("ffn_inputs", m.ffn_inputs, 1);
  at_least("vocab", m.vocab, 1);
  at_least("layers", m.layers, 1);
  if (m.heads % m.heads_kv != 0) {
    throw InvalidArgument(
        fmt::format("heads {} is no multiple of heads_kv {}", m.heads, m.heads_kv));
  }
}

void validate_system(const SystemRates& s) {
  above_zero("tflops", s.tflops);
  above_zero("memory_gib", s.memory_gib);
  above_zero("memory_gib_s", s.memory_gib_s);
  above_zero("link_gib_s", s.link_gib_s);
  above_zero("link_latency_us", s.link_latency_us);
  above_zero("onchip_gib_s", s.onchip_gib_s);
  above_zero("host_gib_s", s.host_gib_s);
  above_zero("efficiency", s.efficiency);
}

void validate_sizes(const LatencyRequest& r) {
  at_least("batch", r.batch, 1);
  at_least("seq", r.seq, 0);
  at_least("prompt", r.prompt, 0);
  at_least("generated", r.generated, 0);
  at_least("beam", r.beam, 1);
  for (const PrefillChunk& chunk : r.chunks) {
    at_least("chunk past", chunk.past, 0);
    at_least("chunk new", chunk.fresh, 0);
  }
  for (const DecodeEntry& entry : r.decodes) {
    at_least("decode entry count", entry.count, 1);
    for (const std::int64_t size :
         {entry.kv, entry.prompt_batch, entry.decode_batch, entry.prompt, entry.generated}) {
      at_least("decode entry size", size, 0);
    }
  }
}

}  // namespace

void validate(const LatencyRequest& r) {
  validate_model(r.model);
  validate_system(r.system);
  validate_sizes(r);
  at_least("tp", r.tp, 1);
  at_least("sp", r.sp, 1);
  at_least("pp", r.pp, 1);
  above_zero("softmax_factor", r.softmax_factor);
  if (r.pp > r.model.layers) {
    throw InvalidArgument(fmt::format("pp {}: the model has {} layers", r.pp, r.model.layers));
  }
  // GenZ goes on with a negative last stage here: 9 layers on 8 stages of 2 leave it -5.
  if (layers_by_stage(r).back() < 1) {
    throw InvalidArgument(fmt::format("pp {}: {} layers at {} a stage leave the last stage {}",
                                      r.pp, r.model.layers, ceil_div(r.model.layers, r.pp),
                                      layers_by_stage(r).back()));
  }
}

std::vector<std::int64_t> layers_by_stage(const LatencyRequest& r) {
  const std::int64_t each = ceil_div(r.model.layers, r.pp);
  std::vector<std::int64_t> layers(static_cast<std::size_t>(r.pp), each);
  layers.back() = r.model.layers - each * (r.pp - 1);
  return layers;
}

}  // namespace cost
}  // namespace annulus
