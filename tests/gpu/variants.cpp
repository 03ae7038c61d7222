#include "tests/gpu/variants.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>

namespace annulus::testing {
namespace {

bool asked_for(const Variant& v, const std::vector<std::string>& names) {
  const std::string dim = std::to_string(v.dim);
  return names.empty() || std::any_of(names.begin(), names.end(), [&](const std::string& name) {
           return name == v.name || name == dim || name == v.name + " " + dim;
         });
}

Variants chosen_from(Variants all, const std::vector<std::string>& names) {
  std::stable_sort(all.begin(), all.end(),
                   [](const Variant& a, const Variant& b) { return a.dim > b.dim; });
  std::erase_if(all, [&](const Variant& v) { return !asked_for(v, names); });
  return all;
}

int run(const Variants& chosen, const Action& action) {
  if (chosen.empty()) {
    std::printf("no such variant\n");
    return 2;
  }
  const Variant& first = chosen.front();
  const std::string reason =
      first.kernel.refuses({DType::bf16, first.dim, first.dim, false, "cuda"});
  if (reason.empty()) return action(chosen);
  std::printf("skipped: %s\n", reason.c_str());
  return 77;
}

void print_phases(const Said& said, std::size_t phases) {
  std::uint64_t all = 0;
  for (std::size_t i = 0; i < phases; ++i) all += said[1 + 2 * i];
  std::printf(" %9.0f", static_cast<double>(all));
  for (std::size_t i = 0; i < phases; ++i) {
    const std::uint64_t count = said[2 + 2 * i];
    const double mean =
        static_cast<double>(said[1 + 2 * i]) / std::max(1.0, static_cast<double>(count));
    std::printf(" %7.0f/%-5u", mean, static_cast<unsigned>(count));
  }
  std::printf("\n");
  std::fflush(stdout);
}

}  // namespace

Variants of_dim(const Variants& all, std::int64_t dim) {
  Variants some = all;
  std::erase_if(some, [&](const Variant& v) { return v.dim != dim; });
  return some;
}

OracleProblem variant_problem(std::int64_t seq, std::int64_t dim) {
  return {.batch = 2,
          .seq = seq,
          .seq_kv = seq,
          .heads = 4,
          .heads_kv = 2,
          .head_dim = dim,
          .head_dim_v = dim,
          .dtype = DType::bf16,
          .terms = {Mask::Causal{}},
          .softmax_scale = 1.0 / std::sqrt(static_cast<double>(dim))};
}

bool print_shares(const Variant& v,
                  const std::function<void(const std::function<void(double)>&)>& work) {
  std::printf("%-16s %3d ", v.name.c_str(), static_cast<int>(v.dim));
  bool right = true;
  work([&](double share) {
    std::printf(" %.2f", share);
    std::fflush(stdout);
    right = right && share <= 1.0;
  });
  std::printf("  %s\n", right ? "ok" : "FAIL");
  return right;
}

int run_variants(int argc, char** argv, Variants (*all)(),
                 const std::map<std::string, Action>& actions) {
  const std::string what = argc > 1 ? argv[1] : "";
  const auto action = actions.find(what);
  if (what != "list" && action == actions.end()) {
    std::fprintf(stderr, "%s list", argv[0]);
    for (const auto& [name, unused] : actions)
      std::fprintf(stderr, " | %s [NAME...]", name.c_str());
    std::fprintf(stderr, "\n");
    return 2;
  }
  try {
    const Variants chosen = chosen_from(all(), {argv + 2, argv + argc});
    if (what != "list") return run(chosen, action->second);
    for (const Variant& v : chosen) std::printf("%s %d\n", v.name.c_str(), static_cast<int>(v.dim));
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}

Said said_by(attn::LaunchContext& context, std::size_t phases,
             const std::function<void()>& launch) {
  Said said(1 + 2 * phases);
  DeviceBytes bytes(said.size() * sizeof said.front());
  check_cuda(cudaMemset(bytes.data(), 0, bytes.size()), "cudaMemset");
  context.flops = reinterpret_cast<std::int64_t*>(bytes.data());
  launch();
  check_cuda(cudaDeviceSynchronize(), "traced launch");
  context.flops = nullptr;
  bytes.read(reinterpret_cast<std::byte*>(said.data()));
  return said;
}

int trace_all(const Variants& all, const std::vector<std::int64_t>& lengths,
              std::span<const char* const> names, const Trace& trace) {
  std::printf("mean clocks of block 0 by what they lead to / how often\n%-14s %3s %-6s %6s %9s", "",
              "dim", "mask", "seq", "all");
  for (const char* name : names) std::printf(" %13s", name);
  std::printf("\n");
  for (const Variant& v : all) {
    if (!v.traced) continue;
    for (const bool causal : {false, true}) {
      for (const std::int64_t seq : lengths) {
        std::printf("%-14s %3d %-6s %6d", v.name.c_str(), static_cast<int>(v.dim),
                    causal ? "causal" : "full", static_cast<int>(seq));
        print_phases(trace(v, {DType::bf16, v.dim, causal, seq}), names.size());
      }
    }
  }
  return 0;
}

void print_tables(const Variants& all, const std::vector<std::int64_t>& lengths, int rounds,
                  const ShapeRow& row) {
  for (const std::int64_t dim : {256, 192, 128, 96, 64}) {
    const Variants variants = of_dim(all, dim);
    if (variants.empty()) continue;
    std::printf(
        "bf16, head dim %d, 16 heads, TFLOP/s, median of %d, interleaved; * for timing "
        "alone\n%-15s",
        static_cast<int>(dim), rounds, "mask    seq x b");
    for (const Variant& v : variants) std::printf(" %16s", (v.name + (v.right ? "" : "*")).c_str());
    std::printf("\n");
    for (const bool causal : {false, true}) {
      for (const std::int64_t seq : lengths) {
        const std::vector<double> rates = row(variants, {DType::bf16, dim, causal, seq});
        std::printf("%-6s %5d x %d", causal ? "causal" : "full", static_cast<int>(seq),
                    static_cast<int>(std::max<std::int64_t>(1, 16384 / seq)));
        for (const double rate : rates) std::printf(" %16.1f", rate);
        std::printf("\n");
        std::fflush(stdout);
      }
    }
  }
}

}  // namespace annulus::testing
