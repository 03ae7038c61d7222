#include <annulus/machine.h>

#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace annulus {
namespace {

/// Ranks whose plans are priced: all of a small world, else enough to meet the slowest.
std::set<int> sampled_ranks(int world) {
  constexpr int kSamples = 16;
  std::set<int> ranks;
  for (int i = 0; i < kSamples; ++i)
    ranks.insert(static_cast<int>(std::int64_t{world - 1} * i / (kSamples - 1)));
  return ranks;
}

double slowest(const PlanRequest& request, const std::vector<Pass>& passes,
               const Machine& machine) {
  std::vector<Plan> plans;
  for (const Pass pass : passes) {
    PlanRequest r = request;
    r.pass = pass;
    plans.push_back(make_plan(r));
  }
  double worst = 0.0;
  for (const int rank : sampled_ranks(request.mesh.world())) {
    double sum = 0.0;
    for (const Plan& plan : plans) sum += predicted_seconds(plan.totals(rank), machine);
    worst = std::max(worst, sum);
  }
  return worst;
}

}  // namespace

double predicted_seconds(const PlanTotals& plan, const Machine& machine) {
  const double compute = static_cast<double>(plan.flops) / machine.flops_per_s;
  const double memory = static_cast<double>(plan.peak_bytes()) / machine.memory_bytes_per_s;
  const double link = static_cast<double>(std::max(plan.bytes_sent, plan.bytes_received)) /
                      machine.link_bytes_per_s;
  return std::max(compute, memory) + link +
         static_cast<double>(plan.transfer_count) * machine.transfer_s;
}

AlgorithmChoice choose_algorithm(const Problem& problem, const Layout& layout, int world,
                                 const std::vector<Pass>& passes, const Machine& machine) {
  AlgorithmChoice best;
  for (const Algorithm candidate : {Algorithm::gather, Algorithm::ring, Algorithm::ulysses}) {
    PlanRequest request;
    request.problem = problem;
    request.layout = layout;
    request.algorithm = candidate;
    request.mesh = candidate == Algorithm::ulysses ? MeshShape{.ring = 1, .ulysses = world}
                                                   : MeshShape{.ring = world, .ulysses = 1};
    const double seconds = slowest(request, passes, machine);
    best.reason +=
        fmt::format("{}{} {:.3g} s", best.reason.empty() ? "" : ", ", name_of(candidate), seconds);
    if (best.reason.find(',') == std::string::npos || seconds < best.predicted_s) {
      best.algorithm = candidate;
      best.mesh = request.mesh;
      best.predicted_s = seconds;
    }
  }
  best.reason += fmt::format(" (analytic, {})", machine.name);
  return best;
}

}  // namespace annulus
