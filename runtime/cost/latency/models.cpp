// A model beside the one that GenZ has in its place, by part of the model.
#include "runtime/cost/format.h"
#include "runtime/cost/latency/operators.h"

#include <annulus/model_comparison.h>
#include <annulus/model_size.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <array>

namespace annulus {
namespace {

using Json = nlohmann::ordered_json;

enum class Part : std::uint8_t { attention, projections, ffn, embedding, links };
constexpr std::array<std::string_view, 5> kParts{"attention", "projections", "ffn", "embedding",
                                                 "links"};

Part part_of(const OperatorRow& row) {
  if (row.is_attention()) return Part::attention;
  if (row.kind == OperatorKind::sync) return Part::links;
  if (row.name == "embeddings" || row.name == "classifier") return Part::embedding;
  for (const char* name : {"QKV", "Q down", "Q up", "KV down", "KV up", "Out Proj"}) {
    if (row.name == name) return Part::projections;
  }
  return Part::ffn;
}

struct Sum {
  std::int64_t macs = 0;
  double seconds = 0;
};

std::array<Sum, kParts.size()> parts_of(const LatencyReport& report) {
  std::array<Sum, kParts.size()> sums{};
  for (const OperatorRow& row : report.rows) {
    Sum& sum = sums.at(static_cast<std::size_t>(part_of(row)));
    sum.macs += row.repeat * row.macs;
    sum.seconds += static_cast<double>(row.repeat) * row.latency_s();
  }
  return sums;
}

std::string ratio(double a, double b) { return b > 0 ? fmt::format("{:.4g}", a / b) : "-"; }

cost::TextRow line(const std::string& name, const Sum& a, const Sum& b) {
  const auto flops = [](std::int64_t macs) {
    return cost::human(2 * static_cast<long double>(macs), "FLOP");
  };
  const auto ms = [](double seconds) { return fmt::format("{:.5g}", seconds * 1e3); };
  return {name,
          flops(a.macs),
          flops(b.macs),
          ratio(static_cast<double>(a.macs), static_cast<double>(b.macs)),
          ms(a.seconds),
          ms(b.seconds),
          ratio(a.seconds, b.seconds)};
}

Sum total(const LatencyReport& report) { return {report.macs, report.latency_s}; }

std::string what_of(const LatencyRequest& r) {
  if (r.stage == Stage::chunked) return "a chunked step";
  if (r.stage == Stage::decode) return fmt::format("decode, {} + {} keys", r.prompt, r.generated);
  return fmt::format("prefill of {} x {} tokens", r.batch, r.seq);
}

std::string stage_text(const ModelComparison& c) {
  std::vector<cost::TextRow> rows{
      {"  of a rank", "the model", "legacy", "ratio", "model ms", "legacy ms", "ratio"}};
  const auto model = parts_of(c.model.upstream);
  const auto legacy = parts_of(c.legacy.upstream);
  for (std::size_t i = 0; i < kParts.size(); ++i) {
    rows.push_back(line(fmt::format("  {}", kParts.at(i)), model.at(i), legacy.at(i)));
  }
  rows.push_back(line("  all, upstream x1", total(c.model.upstream), total(c.legacy.upstream)));
  const double factor = c.model.original.request.softmax_factor;
  rows.push_back(line(fmt::format("  all, original x{:g}", factor), total(c.model.original),
                      total(c.legacy.original)));
  rows.push_back(line(fmt::format("  all, corrected x{:g}", factor), total(c.model.corrected),
                      total(c.legacy.corrected)));
  return fmt::format("{}\n{}", what_of(c.model.original.request), cost::table(std::move(rows), 1));
}

std::vector<std::string> reasons_of(const ModelComparison& c) {
  const ModelShape& model = c.model.original.request.model;
  std::vector<std::string> reasons = differences(
      {.model = {.model = model}, .legacy = {.model = c.legacy.original.request.model}});
  if (model.latent.kv_rank > 0) {
    reasons.emplace_back(
        "The model projects through narrow latents, GenZ at once. In prefill keys and values are "
        "expanded; elsewhere queries meet the cached latent itself.");
  }
  return reasons;
}

Json report_json(const LatencyReport& report) {
  Json parts;
  const auto sums = parts_of(report);
  for (std::size_t i = 0; i < kParts.size(); ++i) {
    parts[std::string(kParts.at(i))] = {{"macs_rank", sums.at(i).macs},
                                        {"latency_s", sums.at(i).seconds}};
  }
  return {{"macs_rank", report.macs},
          {"latency_s", report.latency_s},
          {"weight_bytes", report.weight_bytes},
          {"cache_bytes", report.cache_bytes},
          {"parts", parts}};
}

Json modes_json(const ModeComparison& c) {
  Json json{{"upstream", report_json(c.upstream)},
            {"original", report_json(c.original)},
            {"corrected", report_json(c.corrected)}};
  if (c.by_policy) json["policy_legacy"] = report_json(*c.by_policy);
  return json;
}

}  // namespace

std::string to_text(const std::vector<ModelComparison>& stages) {
  if (stages.empty()) return {};
  const LatencyRequest& r = stages.front().model.original.request;
  std::string text = fmt::format(
      "models  GenZ roofline, analytic, on {}; {}; tp {}, ep {}, sp {}, pp {}; parts: upstream "
      "x1\n",
      r.system.name, name_of(r.precision), r.tp, r.ep, r.sp, r.pp);
  for (const ModelComparison& c : stages) text.append("\n").append(stage_text(c));
  for (const std::string& reason : reasons_of(stages.front())) {
    text += cost::paragraph("differs", reason);
  }
  return text;
}

std::string to_json(const std::vector<ModelComparison>& stages) {
  Json json{{"schema", "annulus.models/1"}, {"source", "analytic"}, {"stages", Json::array()}};
  if (stages.empty()) return json.dump();
  const LatencyRequest& r = stages.front().model.original.request;
  json["system"] = r.system.name;
  json["precision"] = name_of(r.precision);
  json["tp"] = r.tp;
  json["ep"] = r.ep;
  json["sp"] = r.sp;
  json["pp"] = r.pp;
  for (const ModelComparison& c : stages) {
    json["stages"].push_back({{"stage", name_of(c.model.original.request.stage)},
                              {"model", modes_json(c.model)},
                              {"legacy", modes_json(c.legacy)}});
  }
  json["differences"] = reasons_of(stages.front());
  return json.dump();
}

}  // namespace annulus
