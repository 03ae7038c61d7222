#include "runtime/cost/accounting.h"

namespace annulus {
namespace {

double predicted_s(const CostReport& report) {
  const CostRequest& request = report.request;
  if (request.peak_tflops <= 0) return 0.0;
  const MacAccounting& macs =
      request.mode == CostMode::original ? report.original : report.corrected;
  return 2.0 * static_cast<double>(macs.attention_macs_rank_model) / (request.peak_tflops * 1e12);
}

}  // namespace

CostReport price(const CostRequest& request) {
  cost::validate(request);
  CostReport report;
  report.request = request;
  report.original = cost::genz_macs(request, request.sp);
  report.original_x3 = cost::scaled(report.original, request);
  report.corrected = cost::genz_macs(request, 1);
  report.corrected_x3 = cost::scaled(report.corrected, request);
  report.exact = cost::exact_flops(request);
  report.predicted_attention_s = predicted_s(report);
  return report;
}

}  // namespace annulus
