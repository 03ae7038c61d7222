// What a cost report can check of itself.
#include "runtime/cost/format.h"
#include "runtime/cost/gaps.h"

#include <annulus/cost.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

namespace annulus {
namespace {

using Counts = std::vector<std::int64_t>;
using Outcome = CostCheck::Outcome;

/// Counters also see what a kernel pads and what else runs; more than this is another count.
constexpr long double kTolerance = 0.01L;

CostCheck passed(std::string claim) { return {std::move(claim), Outcome::passed, {}}; }

void check_exact(const CostReport& report, std::string_view name, const Counts& flops,
                 bool backward, std::vector<CostCheck>& checks) {
  if (flops.empty()) return;
  // Sums over ranks may pass int64.
  const long double sum = std::accumulate(flops.begin(), flops.end(), 0.0L);
  const std::int64_t exact = cost::masked_flops_of(report, flops, backward);
  checks.push_back(
      passed(fmt::format("{} {} >= exact masked", name, backward ? "backward" : "forward")));
  if (sum >= static_cast<long double>(exact)) return;
  checks.back().outcome = Outcome::failed;
  checks.back().detail = fmt::format("{:.0f} < {} FLOP; a mask, a layout or a counter is wrong.",
                                     static_cast<double>(sum), exact);
}

/// `differs(a, b)`: how far apart; empty: not. Stops at the first rank that fails.
template <typename Differs>
CostCheck compare(std::string claim, const Counts& a, const Counts& b, Differs&& differs) {
  CostCheck check = passed(std::move(claim));
  if (a.size() != b.size()) {
    check.outcome = Outcome::not_comparable;
    check.detail = fmt::format("{} ranks against {}.", a.size(), b.size());
    return check;
  }
  for (std::size_t rank = 0; rank < a.size(); ++rank) {
    const std::optional<std::string> how = differs(a[rank], b[rank]);
    if (!how) continue;
    check.outcome = Outcome::failed;
    check.detail = fmt::format("rank {}: {}", rank, *how);
    break;
  }
  return check;
}

void check_bound(const Counts& executed, const Counts& planned, std::string_view pass,
                 std::vector<CostCheck>& checks) {
  if (executed.empty() || planned.empty()) return;
  checks.push_back(compare(
      fmt::format("executed {} <= tile bound (planned)", pass), executed, planned,
      [](std::int64_t did, std::int64_t bound) -> std::optional<std::string> {
        if (did <= bound) return std::nullopt;
        return fmt::format("{} > {} FLOP; the kernel visits more than its tiles.", did, bound);
      }));
}

void check_hardware(const Counts& read, const Counts& executed, std::string_view pass,
                    std::vector<CostCheck>& checks) {
  if (read.empty() || executed.empty()) return;
  const std::string claim = fmt::format("hardware {} = executed within 1 %", pass);
  const auto none = [](std::int64_t flops) { return flops == 0; };
  if (std::ranges::all_of(read, none) && !std::ranges::all_of(executed, none)) {
    checks.push_back({claim, Outcome::not_comparable,
                      "no tensor core worked: this kernel's products run elsewhere."});
    return;
  }
  checks.push_back(compare(
      claim, read, executed, [](std::int64_t seen, std::int64_t did) -> std::optional<std::string> {
        const auto real = static_cast<long double>(did);
        const long double off = static_cast<long double>(seen) - real;
        if (std::abs(off) <= kTolerance * real) return std::nullopt;
        return fmt::format("hardware {} against executed {} FLOP ({:+.2f} %).", seen, did,
                           did == 0 ? 100.0 : static_cast<double>(100 * off / real));
      }));
}

}  // namespace

std::string_view name_of(CostCheck::Outcome outcome) {
  switch (outcome) {
    case Outcome::passed:
      return "passed";
    case Outcome::failed:
      return "failed";
    case Outcome::not_comparable:
      break;
  }
  return "not comparable";
}

std::vector<CostCheck> self_checks(const CostReport& r) {
  std::vector<CostCheck> checks;
  check_exact(r, "planned", r.planned.flops_rank_layer, false, checks);
  check_exact(r, "planned", r.planned.backward_flops_rank_layer, true, checks);
  check_exact(r, "executed", r.executed.flops_rank_layer, false, checks);
  check_exact(r, "executed", r.executed.backward_flops_rank_layer, true, checks);
  check_bound(r.executed.flops_rank_layer, r.planned.flops_rank_layer, "forward", checks);
  check_bound(r.executed.backward_flops_rank_layer, r.planned.backward_flops_rank_layer, "backward",
              checks);
  check_hardware(r.hardware.flops_rank_layer, r.executed.flops_rank_layer, "forward", checks);
  check_hardware(r.hardware.backward_flops_rank_layer, r.executed.backward_flops_rank_layer,
                 "backward", checks);
  return checks;
}

namespace cost {

std::string checks_text(const CostReport& report) {
  std::string text;
  for (const CostCheck& check : self_checks(report)) {
    switch (check.outcome) {
      case Outcome::passed:
        text += paragraph("check", check.claim + ": ok");
        break;
      case Outcome::failed:
        text += paragraph("WARNING:", fmt::format("not {}: {}", check.claim, check.detail));
        break;
      case Outcome::not_comparable:
        text += paragraph("check", fmt::format("{}: not compared: {}", check.claim, check.detail));
        break;
    }
  }
  return text;
}

}  // namespace cost
}  // namespace annulus
