#include "launch/mask/picture.h"

#include "launch/command.h"
#include "launch/error.h"
#include "launch/options/grid.h"
#include "launch/options/value.h"
#include "launch/output.h"
#include "launch/request/problem.h"

#include <annulus/annulus.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <numeric>
#include <string>
#include <vector>

namespace annulus::launch {
namespace {

using nlohmann::ordered_json;

constexpr std::size_t kMostRows = 16;  ///< ranks that the table shows one by one

struct MaskReport {
  MaskPicture picture;
  TileCounts tiles;
  std::int64_t pairs = 0;

  /// The busiest rank over the mean.
  double imbalance() const {
    if (pairs == 0) return 1;
    const auto most = static_cast<double>(std::ranges::max(picture.rank_pairs));
    return most * static_cast<double>(picture.rank_pairs.size()) / static_cast<double>(pairs);
  }
};

std::vector<std::string> read_labels(const Settings& settings, std::int64_t needed) {
  if (!settings.has("labels")) return {};
  const std::filesystem::path file = settings.path("labels");
  std::error_code error;
  if (!std::filesystem::is_regular_file(file, error)) {
    settings.refuse("labels", "is not a regular file");
  }
  std::ifstream stream(file);
  std::vector<std::string> labels;
  for (std::string line; std::getline(stream, line);) labels.push_back(trim(line));
  if (std::ssize(labels) != needed) {
    settings.refuse("labels",
                    fmt::format("has {} lines; allowed: {}, one a token", labels.size(), needed));
  }
  return labels;
}

std::vector<std::int64_t> document_ends(const Mask& mask) {
  std::vector<std::int64_t> ends;
  for (const Mask::Term& term : mask.terms()) {
    const auto* documents = std::get_if<Mask::Documents>(&term);
    if (documents == nullptr) continue;
    ends.resize(documents->lengths.size());
    std::partial_sum(documents->lengths.begin(), documents->lengths.end(), ends.begin());
  }
  return ends;
}

MaskReport make_report(const Settings& settings, const Problem& problem, int world) {
  MaskReport report;
  MaskPicture& picture = report.picture;
  picture.problem = problem;
  picture.layout = layout_of(settings).name();
  picture.sharding = solve_layout(layout_of(settings), problem, world);
  picture.tile = settings.integer("tile");
  picture.rank_pairs = count_pairs_by_rank(problem, picture.sharding);
  picture.labels = read_labels(settings, std::max(problem.seq, *problem.seq_kv));
  picture.document_ends = document_ends(problem.mask);
  report.tiles = MaskTiles(problem, picture.tile, picture.tile).count();
  report.pairs =
      std::accumulate(picture.rank_pairs.begin(), picture.rank_pairs.end(), std::int64_t{0});
  return report;
}

double percent(std::int64_t part, double all) {
  return all > 0 ? 100.0 * static_cast<double>(part) / all : 0;
}

std::string to_text(const MaskReport& r) {
  const MaskPicture& p = r.picture;
  const std::int64_t seq_kv = *p.problem.seq_kv;
  const double all = static_cast<double>(p.problem.seq) * static_cast<double>(seq_kv);
  const auto tiles = static_cast<double>(r.tiles.full + r.tiles.partial + r.tiles.empty);
  std::string text = fmt::format(
      "mask       {}, {} queries x {} keys (one head of one batch element)\n"
      "pairs      {} unmasked, {:.2f} % of all\n"
      "tiles      {} x {}: {} full ({:.2f} %), {} partial ({:.2f} %), {} empty ({:.2f} %)\n"
      "ranks      {}, {} layout; the busiest has {:.4f} of the mean load\n",
      p.problem.mask.name(), p.problem.seq, seq_kv, r.pairs, percent(r.pairs, all), p.tile, p.tile,
      r.tiles.full, percent(r.tiles.full, tiles), r.tiles.partial, percent(r.tiles.partial, tiles),
      r.tiles.empty, percent(r.tiles.empty, tiles), p.rank_pairs.size(), p.layout, r.imbalance());
  if (p.rank_pairs.size() > kMostRows) {
    return text + fmt::format("  least {}, most {} unmasked pairs\n",
                              std::ranges::min(p.rank_pairs), std::ranges::max(p.rank_pairs));
  }
  for (std::size_t rank = 0; rank < p.rank_pairs.size(); ++rank) {
    text +=
        fmt::format("  rank {:>2}  {:>16} unmasked pairs  {:>6.2f} %\n", rank, p.rank_pairs[rank],
                    percent(p.rank_pairs[rank], static_cast<double>(r.pairs)));
  }
  return text;
}

std::string to_json(const MaskReport& r) {
  const MaskPicture& p = r.picture;
  const ordered_json json{{"schema", "annulus.mask/1"},
                          {"problem", ordered_json::parse(problem_json(p.problem))},
                          {"world", p.rank_pairs.size()},
                          {"layout", p.layout},
                          {"tile", p.tile},
                          {"unmasked_pairs", r.pairs},
                          {"tiles_full", r.tiles.full},
                          {"tiles_partial", r.tiles.partial},
                          {"tiles_empty", r.tiles.empty},
                          {"rank_pairs", p.rank_pairs},
                          {"imbalance", r.imbalance()}};
  return json.dump();
}

}  // namespace

int run_mask(const Call& call) {
  const Settings& settings = call.settings;
  refuse_grid(settings, "mask");
  refuse_unbuilt(settings);
  refuse_typed_trace(settings);
  const Problem problem = problem_of(settings);
  const int world = planned_world_of(settings, call.started);
  if (call.started.rank != 0) return kPassed;  // one process draws for all ranks
  const auto output = [&](const char* key) {
    return OutputFile(settings.has(key) ? settings.path(key) : "", settings.where(key));
  };
  OutputFile json = output("json");
  OutputFile svg = output("svg");
  const MaskReport report = make_report(settings, problem, world);
  const bool to_screen = !json.to_standard_output() && !svg.to_standard_output();
  if (!settings.flag("quiet")) fmt::print(to_screen ? stdout : stderr, "{}", to_text(report));
  if (svg.wanted()) {
    svg.commit(draw_mask(report.picture));
    if (to_screen && !settings.flag("quiet")) {
      fmt::print("picture    {}\n", settings.path("svg").string());
    }
  }
  if (json.wanted()) json.commit(to_json(report) + "\n");
  return kPassed;
}

}  // namespace annulus::launch
