// How long plans take to make, with generous limits: a shared, busy machine must pass too. The
// goals stand in docs/performance.md; the figures are printed.

#include <annulus/plan.h>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <fstream>
#include <random>
#include <string>
#include <thread>

namespace annulus {
namespace {

using Clock = std::chrono::steady_clock;

double milliseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

std::vector<std::int64_t> long_tailed(std::int64_t seq) {
  std::mt19937_64 engine(5);
  std::lognormal_distribution<double> drawn(6.0, 1.5);
  std::vector<std::int64_t> lengths;
  for (std::int64_t left = seq; left > 0; left -= lengths.back()) {
    lengths.push_back(std::clamp(static_cast<std::int64_t>(drawn(engine)), std::int64_t{1}, left));
  }
  return lengths;
}

PlanRequest request_of(Algorithm algorithm, Layout layout, std::int64_t seq, int world) {
  PlanRequest r;
  r.problem.seq = seq;
  r.problem.heads = 32;
  r.problem.heads_kv = 8;
  r.problem.head_dim = 128;
  r.problem.dtype = DType::bf16;
  r.layout = std::move(layout);
  r.algorithm = algorithm;
  r.mesh = {.ring = world};
  return r;
}

TEST(PlanSpeed, OneRankOfSixtyFourForPackedDocuments) {
  for (const Algorithm algorithm : {Algorithm::ring, Algorithm::gather}) {
    for (const Layout& layout : {Layout::zigzag(), Layout::balanced()}) {
      for (const Pass pass : {Pass::forward, Pass::backward}) {
        PlanRequest request = request_of(algorithm, layout, 65536, 64);
        request.problem.mask = Mask::documents(long_tailed(65536));
        request.pass = pass;
        double best = 1e9;
        std::size_t items = 0;
        for (int n = 0; n < 5; ++n) {
          const auto start = Clock::now();
          items = make_plan(request).rank(0).items.size();
          best = std::min(best, milliseconds_since(start));
        }
        fmt::print("64k packed tokens, 64 ranks, {} {} {}: {:.2f} ms, {} items\n",
                   name_of(algorithm), layout.name(), name_of(pass), best, items);
        EXPECT_LT(best, 50.0);
      }
    }
  }
}

/// VmHWM of this process in MiB.
double peak_mib() {
  std::ifstream status("/proc/self/status");
  std::string word;
  double kib = 0.0;
  while (status >> word) {
    if (word == "VmHWM:") status >> kib;
  }
  return kib / 1024.0;
}

/// Every `stride`-th rank, over two threads. All of them together hold every pair.
double ranks_ms(const PlanRequest& request, int stride) {
  const auto start = Clock::now();
  const Plan plan = make_plan(request);
  std::atomic<int> next{0};
  std::atomic<std::int64_t> pairs{0};
  const auto work = [&] {
    for (int r = next.fetch_add(stride); r < plan.world(); r = next.fetch_add(stride)) {
      pairs += plan.rank(r).masked_pairs;
    }
  };
  std::thread other(work);
  work();
  other.join();
  const std::int64_t seq = request.problem.seq;
  if (stride == 1) {
    EXPECT_EQ(pairs.load(), seq * (seq + 1) / 2 * request.problem.heads);
  }
  return milliseconds_since(start);
}

PlanRequest million(Algorithm algorithm, Pass pass) {
  PlanRequest request = request_of(algorithm, Layout::zigzag(), 1 << 20, 1024);
  request.pass = pass;
  return request;
}

TEST(PlanSpeed, AllRanksOfAThousandRingForAMillionTokens) {
  for (const Pass pass : {Pass::forward, Pass::backward}) {
    const double ms = ranks_ms(million(Algorithm::ring, pass), 1);
    fmt::print("1M tokens, 1024 ranks, ring {}: {:.0f} ms, {:.0f} MiB\n", name_of(pass), ms,
               peak_mib());
    EXPECT_LT(ms, 20000.0);
    EXPECT_LT(peak_mib(), 1024.0);
  }
}

TEST(PlanSpeed, OneRankOfAThousandGatherForAMillionTokens) {
  for (const Pass pass : {Pass::forward, Pass::backward}) {
    const double ms = ranks_ms(million(Algorithm::gather, pass), 32) / 32;
    fmt::print("1M tokens, 1024 ranks, gather {}: {:.1f} ms a rank on two threads, {:.0f} MiB\n",
               name_of(pass), ms, peak_mib());
    EXPECT_LT(ms, 500.0);
    EXPECT_LT(peak_mib(), 1024.0);
  }
}

}  // namespace
}  // namespace annulus
