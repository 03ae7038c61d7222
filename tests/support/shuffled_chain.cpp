#include "tests/support/shuffled_chain.h"

#include "tests/support/random.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <random>

namespace annulus::testing {
namespace {

/// Two of five rows see nothing, the others two intervals.
Mask::Rows some_rows(std::int64_t rows) {
  Mask::Rows mask;
  for (std::int64_t i = 0; i < rows; ++i) {
    const std::int64_t middle = i / 2 + 3;
    mask.intervals.push_back(i % 5 < 2 ? RowIntervals{}
                                       : RowIntervals{KeyInterval{i / 4, i / 2},
                                                      KeyInterval{middle, middle + rows / 3}});
  }
  return mask;
}

std::vector<std::vector<attn::KeySegment>> dealt(std::vector<attn::KeySegment> segments,
                                                 std::mt19937_64& random) {
  std::shuffle(segments.begin(), segments.end(), random);
  const auto launches = static_cast<std::size_t>(
      random_between(random, 2, static_cast<std::int64_t>(segments.size())));
  std::vector<std::vector<attn::KeySegment>> hands(launches);
  for (std::size_t i = 0; i < segments.size(); ++i) hands[i % launches].push_back(segments[i]);
  return hands;
}

}  // namespace

std::vector<TestLaunch> ShuffledChain::chain(const TileGrid& grid) const {
  std::vector<TestLaunch> made;
  for (const auto& keys : launches) made.push_back(make_launch(problem, keys, grid));
  return made;
}

ShuffledChain shuffled_chain(const OracleProblem& like, std::int64_t rows, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  ShuffledChain made{like, {}};
  OracleProblem& p = made.problem;
  p.seq = rows;
  p.seq_kv = rows + rows / 2;
  // No row sees keys from `rows` on.
  if (seed % 3 == 0) p.terms = {Mask::Causal{CausalAlign::top_left}};
  if (seed % 3 == 1) {
    p.terms = {Mask::Window{random_between(random, rows / 4, rows / 2), 0, CausalAlign::top_left}};
  }
  if (seed % 3 == 2) p.terms = {some_rows(rows)};
  std::vector<std::int64_t> cuts(static_cast<std::size_t>(random_between(random, 2, 6)));
  for (std::int64_t& cut : cuts) cut = random_between(random, 1, rows - 1);
  std::sort(cuts.begin(), cuts.end());
  cuts.push_back(rows);
  auto segments = segments_cut_at(p.seq_kv, cuts);
  const attn::KeySegment unseen = segments.back();
  segments.pop_back();
  made.launches = dealt(segments, random);
  const std::uint64_t turn = seed / 3 % 3;
  const std::size_t place = turn == 0 ? 0 : turn == 1 ? 1 : made.launches.size();
  made.launches.insert(made.launches.begin() + static_cast<std::ptrdiff_t>(place), {unseen});
  return made;
}

double root_mean_square(const std::vector<double>& actual, const std::vector<double>& truth) {
  double sum = 0.0;
  for (std::size_t i = 0; i < truth.size(); ++i) {
    if (actual[i] == truth[i]) continue;  // both are -inf in rows that see nothing
    sum += (actual[i] - truth[i]) * (actual[i] - truth[i]);
  }
  return truth.empty() ? 0.0 : std::sqrt(sum / static_cast<double>(truth.size()));
}

double chain_ratio(const OracleResult& parts, const OracleResult& one, const OracleResult& truth) {
  constexpr double kTiny = 1e-6;  // sums in f32 of numbers near 1 in another order
  double worst = 0.0;
  const auto meet = [&](std::vector<double> OracleResult::*tensor) {
    if ((truth.*tensor).empty() || (parts.*tensor).size() != (truth.*tensor).size()) return;
    const double ours = root_mean_square(parts.*tensor, truth.*tensor);
    const double whole = root_mean_square(one.*tensor, truth.*tensor);
    const double ratio = ours <= kTiny ? 1.0 : ours / std::max(whole, kTiny);
    // What is no number is worse than anything, whatever comes after it.
    worst = std::isnan(ratio) ? std::numeric_limits<double>::infinity() : std::max(worst, ratio);
  };
  for (const auto tensor : {&OracleResult::out, &OracleResult::lse, &OracleResult::dq,
                            &OracleResult::dk, &OracleResult::dv}) {
    meet(tensor);
  }
  return worst;
}

}  // namespace annulus::testing
