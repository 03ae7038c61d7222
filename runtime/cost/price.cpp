#include "runtime/cost/accounting.h"
#include "runtime/cost/count.h"

namespace annulus {
namespace {

std::int64_t driving_macs(const CostReport& report) {
  const CostRequest& request = report.request;
  std::int64_t macs = 0;
  for (const LayerGroup& group : cost::kinds_of(request)) {
    const CostMode mode = mode_of(request.mode, request.policy, group.kind);
    const MacAccounting& row = mode == CostMode::original ? report.original : report.corrected;
    macs = cost::plus(macs, cost::times(group.count, cost::plus(row.logit_macs_rank_layer,
                                                                row.attend_macs_rank_layer)));
  }
  return macs;
}

double predicted_s(const CostReport& report) {
  const CostRequest& request = report.request;
  if (request.peak_tflops <= 0) return 0.0;
  return 2.0 * static_cast<double>(report.driving_macs_rank_model) / (request.peak_tflops * 1e12);
}

}  // namespace

std::vector<LayerGroup> cost::kinds_of(const CostRequest& request) {
  if (!request.layer_kinds.empty()) return request.layer_kinds;
  return {{.kind = LayerKind::dense, .count = request.layers}};
}

CostReport price(const CostRequest& request) {
  cost::validate(request);
  CostReport report;
  report.request = request;
  report.original = cost::genz_macs(request, request.sp);
  report.original_x3 = cost::scaled(report.original, request);
  report.corrected = cost::genz_macs(request, 1);
  report.corrected_x3 = cost::scaled(report.corrected, request);
  report.exact = cost::exact_flops(request);
  report.driving_macs_rank_model = driving_macs(report);
  report.predicted_attention_s = predicted_s(report);
  return report;
}

}  // namespace annulus
