// The CUDA kernels against the float64 oracle, and their speed:
//   kernels_gpu                 checks; a line a case, exit status 1 if one fails, 77 without a GPU
//   kernels_gpu --only TEXT [forward] [REPEATS]   only cases whose line, such as "hopper causal
//                               bf16 dim 128:128 ...", contains TEXT; forward: without the
//                               backward, where cases are of numbers; REPEATS [1]: runs that must
//                               give the same bits
//   kernels_gpu --host-oracle ...   the oracle on the host; else on the GPU (device_oracle.h)
//   kernels_gpu --time [hopper] [TEXT] [deterministic] [forward] [once]   times flash2, or hopper:
//                               shapes whose name, such as "bf16 128 causal 16384", contains TEXT;
//                               once: for profilers
//   kernels_gpu --time hopper decode  few rows and many keys, split over keys and whole
//   kernels_gpu --ratios [TEXT]       hopper's launches as rings want them, beside the plain ones
#include "attention/kernels/cuda/table.h"
#include "tests/gpu/chain_cases.h"
#include "tests/gpu/contract_cases.h"
#include "tests/gpu/device_kernel.h"
#include "tests/gpu/device_oracle.h"
#include "tests/gpu/dims_cases.h"
#include "tests/gpu/kernel_cases.h"
#include "tests/gpu/rounded_cases.h"
#include "tests/gpu/split_cases.h"
#include "tests/gpu/suite_cases.h"
#include "tests/gpu/time_decode.h"
#include "tests/gpu/time_kernels.h"
#include "tests/gpu/time_ratios.h"

#include <algorithm>
#include <cstdio>
#include <exception>
#include <string>
#include <string_view>
#include <vector>

namespace annulus::testing {
namespace {

using attn::KeySegment;

const std::vector<std::string_view> kAll{"flash2", "flash1", "naive", "reference", "hopper"};
const std::vector<std::string_view> kFast{"flash2", "hopper"};

void shapes(const Cases& cases) {
  for (const DType dtype : {DType::bf16, DType::f16}) {
    for (const std::int64_t dim : {128, 64}) {
      for (const std::int64_t seq : {1, 7, 130, 613}) {
        cases.whole("causal", problem_of(dtype, seq, dim), kFast);
        OracleProblem full = problem_of(dtype, seq, dim);
        full.terms.clear();
        cases.whole("full", full, kFast);
      }
      cases.whole("causal", problem_of(dtype, 257, dim), kAll);
      cases.whole("causal grouped", problem_of(dtype, 300, dim, 24, 8), kFast);
    }
  }
  for (const std::int64_t dim : {128, 64}) {
    OracleProblem many = problem_of(DType::bf16, 300, dim, 24, 8);  // items than blocks that stay
    many.batch = 8;
    cases.whole("causal many", many, kFast);
  }
  cases.whole("causal long", problem_of(DType::bf16, 1024, 128, 6, 2), kFast);
  cases.whole("causal long", problem_of(DType::bf16, 1024, 64, 6, 2), kFast);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const std::int64_t dim : {1, 7, 24, 96, 512}) {
      OracleProblem p = problem_of(dtype, 145, dim);
      p.head_dim_v = dim == 24 ? 40 : dim;
      cases.whole("other dims", p, kAll);
    }
  }
  cases.whole("f32", problem_of(DType::f32, 200, 128), kAll);
}

void masks(const Cases& cases) {
  for (const std::int64_t dim : {128, 64}) {
    OracleProblem p = problem_of(DType::bf16, 400, dim);
    p.batch = 2;
    p.terms = {Mask::Window{100, 0}};
    cases.whole("window", p, kFast);
    p.terms = {Mask::Documents{{100, 0, 37, 1, 262}, true}};
    cases.whole("documents", p, kFast);
    p.terms = {Mask::Prefix{150}};
    cases.whole("prefix", p, kFast);
    Mask::Rows rows;  // half of the rows see nothing, others two intervals
    for (std::int64_t i = 0; i < 400; ++i) {
      rows.intervals.push_back(
          i % 2 == 0 || (i > 128 && i < 390)
              ? RowIntervals{}
              : RowIntervals{KeyInterval{i / 4, i / 2}, KeyInterval{i / 2 + 3, i / 2 + 90}});
    }
    p.terms = {rows};
    cases.whole("rows", p, kAll);
    p.terms = {Mask::Causal{}};
    p.softcap = 5.0;
    cases.whole("softcap", p, kAll);
    p.softcap = 0.0;
    p.seq = 70;
    cases.whole("fewer queries", p, kFast);
    p.seq = 400;
    p.seq_kv = 90;
    cases.whole("fewer keys", p, kFast);
    p.seq_kv = 400;
    cases.whole("small tiles", p, kFast, {48, 40});
    Case visited{name_of("masked tiles", p), {make_launch(p, one_segment(p), kGrid)}};
    visited.chain[0].tiles.clear();
    for (std::int32_t row = 0; row < 400; row += 128) {
      for (std::int32_t key = 0; key < 400; key += 128) {
        visited.chain[0].tiles.push_back(
            {row, std::min(128, 400 - row), 0, std::min(128, 400 - key), key, false});
      }
    }
    cases.run(visited, kAll);
  }
}

/// Two tiles begin at row 0 and are full, but the second ends after 21 of the 90 rows: with halves
/// that it does not reach.
void uneven_tiles(const Cases& cases, std::int64_t dim) {
  OracleProblem p = problem_of(DType::bf16, 90, dim);
  p.seq_kv = 60;
  Mask::Rows rows;
  for (std::int64_t i = 0; i < 90; ++i) {
    rows.intervals.push_back({KeyInterval{0, i < 21 ? 60 : 20}});
  }
  p.terms = {rows};
  Case c{name_of("uneven tiles", p), {make_launch(p, one_segment(p), kGrid)}};
  c.chain[0].tiles = {{0, 90, 0, 20, 0, true}, {0, 21, 0, 40, 20, true}};
  cases.run(c, kAll);
}

/// Taller than what other kernels take, as `hopper` wants them; misaligned ones go elsewhere.
void tall_tiles(const Cases& cases) {
  const OracleProblem p = problem_of(DType::bf16, 413, 64);
  const TestLaunch launch = make_launch(p, one_segment(p), {192, 128});
  cases.run({name_of("tall tiles", p), {launch}, {.gap = 8, .gap_step = 8}, true}, {"hopper"});
  cases.run({name_of("tall tiles misaligned", p), {launch}, {.gap = 3}, true}, {"hopper"});
}

/// Each launch's later keys are seen by half of the rows: the others are a gap for many blocks, at
/// the end of a chain and at its beginning.
void half_unvisited(const Cases& cases, std::int64_t dim) {
  const OracleProblem p = problem_of(DType::bf16, 1201, dim, 2, 1);
  auto halves = segments_cut_at(1201, {600});
  for (const char* what : {"half unvisited last", "half unvisited first"}) {
    Case c{name_of(what, p), {}};
    for (const KeySegment& segment : halves) c.chain.push_back(make_launch(p, {segment}, kGrid));
    cases.run(c, {"flash2", "flash1", "naive", "hopper"});
    std::swap(halves[0], halves[1]);
  }
}

/// Launches that know that their sequence is short: kernels may take other steps then.
void short_sequences(const Cases& cases) {
  OracleProblem p = problem_of(DType::bf16, 413, 128);
  const auto run = [&](const char* what, const std::vector<KeySegment>& keys) {
    Case c{name_of(what, p), {make_launch(p, keys, kGrid)}};
    c.chain[0].sequence_keys = p.seq_kv;
    cases.run(c, {"hopper"});
  };
  run("short sequence", one_segment(p));
  run("short sequence, odd segments", segments_cut_at(413, {1, 8, 8, 77, 140, 300}));
  p.terms = {Mask::Window{150, 0}};
  run("short sequence, striped", striped_segments(413, 4));
  p.dtype = DType::f16;
  run("short sequence", one_segment(p));
}

void cuts(const Cases& cases) {
  for (const std::int64_t dim : {128, 64}) {
    const OracleProblem p = problem_of(DType::bf16, 413, dim);
    cases.run({name_of("odd segments", p),
               {make_launch(p, segments_cut_at(413, {1, 8, 8, 77, 140, 300}), kGrid)}},
              kAll);
    auto mixed = segments_cut_at(413, {30, 301});
    std::swap(mixed[0], mixed[2]);
    cases.run({name_of("segments in any order", p), {make_launch(p, mixed, kGrid)}}, kFast);
    OracleProblem window = p;
    window.terms.emplace_back(Mask::Window{150, 0});
    cases.run({name_of("striped", p), {make_launch(window, striped_segments(413, 4), kGrid)}},
              kAll);
    cases.run(
        {name_of("three tensors", p),
         {make_launch(p, from_sources(segments_cut_at(413, {1, 8, 8, 77, 140, 300}), 3), kGrid)}},
        kAll);
    cases.chained("resumed", p, {5, 5, 180, 333}, kAll);
    cases.chained("resumed past empty", p, {0, 200, 200, 413}, kFast);
    half_unvisited(cases, dim);
    cases.run({name_of("misaligned", p), {make_launch(p, one_segment(p), kGrid)}, {.gap = 3}},
              kFast);
    // More than hopper has maps for.
    cases.run({name_of("ten tensors", p),
               {make_launch(
                   p,
                   from_sources(
                       segments_cut_at(413, {30, 60, 90, 130, 170, 210, 250, 290, 330, 370}), 10),
                   kGrid)}},
              kFast);
    cases.run({name_of("heads first", p),
               {make_launch(p, one_segment(p), kGrid)},
               {.gap = 8, .gap_step = 8, .heads_first = true}},
              kFast);
    // Two launches name all keys, each with its part of the tiles: dk and dv add up. The oracle
    // kernel looks at no tiles and cannot know.
    Case halves{name_of("added key gradients", p), {}};
    halves.chain.assign(2, make_launch(p, one_segment(p), kGrid));
    const auto tiles = halves.chain[0].tiles;
    for (std::size_t i = 0; i < 2; ++i) {
      halves.chain[i].tiles.clear();
      for (const attn::Tile& tile : tiles) {
        if ((tile.key < 200) == (i == 0)) halves.chain[i].tiles.push_back(tile);
      }
    }
    halves.options.add_key_gradients = true;
    cases.run(halves, {"flash2", "flash1", "naive", "hopper"});
    uneven_tiles(cases, dim);
    Case queries{name_of("query segments", p), {make_launch(p, one_segment(p), kGrid)}};
    queries.chain[0].queries = {{0, 0, 100}, {100, 100, 1}, {101, 101, 312}};
    cases.run(queries, kFast);
  }
  OracleProblem p = problem_of(DType::f32, 145, 24);
  p.head_dim_v = 24;
  Case c{name_of("state in out", p), {}};
  for (const KeySegment& segment : segments_cut_at(145, {5, 80})) {
    c.chain.push_back(make_launch(p, {segment}, kGrid));
  }
  c.options.state_in_out = true;
  cases.run(c, kAll);
}

int run(const Filter& filter) {
  Tally tally;
  const Cases cases(filter, tally);
  std::printf(
      "errors are shares of the bound (2 x naive low precision + rounding of f32 logits)\n");
  shapes(cases);
  masks(cases);
  cuts(cases);
  short_sequences(cases);
  tall_tiles(cases);
  dims_cases(cases);
  chain_cases(filter, tally);
  split_cases(cases);
  suite_cases(cases);
  if (!filter.forward) rounded_cases(cases);
  if (!filter.forward) contract_cases(filter.only, tally);
  std::printf("%d cases, %d failed\n", tally.cases, tally.failed);
  return tally.failed == 0 && tally.cases > 0 ? 0 : 1;
}

TimeOptions time_options(const std::vector<std::string>& arguments) {
  TimeOptions options;
  for (std::size_t i = 1; i < arguments.size(); ++i) {
    if (arguments[i] == "deterministic") {
      options.deterministic = true;
    } else if (arguments[i] == "forward") {
      options.forward = true;
    } else if (arguments[i] == "once") {
      options.repeats = 1;
    } else if (arguments[i] == "hopper") {
      options.kernel = arguments[i];
    } else {
      options.only = arguments[i];
    }
  }
  return options;
}

}  // namespace
}  // namespace annulus::testing

int main(int argc, char** argv) {
  int devices = 0;
  const cudaError_t status = cudaGetDeviceCount(&devices);
  if (status != cudaSuccess || devices == 0) {
    std::printf("skipped: no CUDA device (%s)\n", cudaGetErrorString(status));
    return 77;
  }
  std::vector<std::string> arguments(argv + 1, argv + argc);
  if (std::erase(arguments, "--host-oracle") > 0) annulus::testing::use_host_oracle();
  try {
    if (!arguments.empty() && arguments[0] == "--time") {
      const auto options = annulus::testing::time_options(arguments);
      if (options.only.find("decode") == std::string::npos) {
        annulus::testing::time_kernels(options);
      } else {
        annulus::testing::time_decode(options);
      }
      return 0;
    }
    if (!arguments.empty() && arguments[0] == "--ratios" && arguments.size() <= 2) {
      annulus::testing::time_ratios(arguments.size() == 2 ? arguments[1] : "");
      return 0;
    }
    if (arguments.size() >= 2 && arguments[0] == "--only" && arguments.size() <= 4) {
      annulus::testing::Filter filter{.only = arguments[1]};
      for (std::size_t i = 2; i < arguments.size(); ++i) {
        filter.forward = filter.forward || arguments[i] == "forward";
        if (arguments[i] != "forward") filter.repeats = std::stoi(arguments[i]);
      }
      return annulus::testing::run(filter);
    }
    if (arguments.empty()) return annulus::testing::run({});
    std::fprintf(
        stderr,
        "kernels_gpu [--host-oracle] [--time [hopper] [TEXT] [deterministic] [forward] [once] | "
        "--ratios [TEXT] | --only TEXT [forward] [REPEATS]]\n");
    return 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
