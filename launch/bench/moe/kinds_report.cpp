#include "launch/bench/json_parts.h"
#include "launch/bench/moe/kinds.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace annulus::launch {
namespace {

using nlohmann::ordered_json;

std::string pass_line(const char* pass, const std::optional<Timing>& layer,
                      const std::optional<Timing>& ffn) {
  if (!layer || !ffn || layer->median_s <= 0) return {};
  return fmt::format("layer      {} {:.4f} s, {:.0f} % of it FFN\n", pass, layer->median_s,
                     100 * ffn->median_s / layer->median_s);
}

ordered_json timing_of(const KindReport& k) {
  return {{"forward", timing_json(k.forward)}, {"backward", timing_json(k.backward)}};
}

}  // namespace

std::string to_text(const std::vector<KindReport>& kinds, const CountedFlops& attention) {
  std::string text;
  for (const KindReport& k : kinds) {
    text += fmt::format("\nlayers     {} of kind {}; one was run\n", k.layers, name_of(k.kind));
    text += to_text(k.ffn);
    text += pass_line("forward", k.forward, k.ffn.forward);
    text += pass_line("backward", k.backward, k.ffn.backward);
  }
  const ModelSums sums = sums_of(kinds, attention);
  return text + fmt::format(
                    "model      {} layers: forward {:.4f} s, {} FLOP executed; backward "
                    "{:.4f} s, {} FLOP; sums by count of one layer of each kind\n",
                    sums.layers, sums.forward_s, sums.forward_flops, sums.backward_s,
                    sums.backward_flops);
}

std::string kinds_json(const std::vector<KindReport>& kinds, const CountedFlops& attention) {
  ordered_json json;
  ordered_json list = ordered_json::array();
  for (const KindReport& k : kinds) {
    // The experts' layer, where there is one, else the dense one.
    if (json.empty() || k.kind == LayerKind::moe) json["timing"] = timing_of(k);
    list.push_back({{"kind", name_of(k.kind)}, {"layers", k.layers}, {"timing", timing_of(k)}});
  }
  for (const KindReport& k : kinds) {
    json[std::string(name_of(k.kind))] = ordered_json::parse(moe_json(k.ffn));
  }
  const ModelSums sums = sums_of(kinds, attention);
  json["kinds"] = list;
  json["model"] = {{"layers", sums.layers},
                   {"forward_s", sums.forward_s},
                   {"backward_s", sums.backward_s},
                   {"executed_flops", sums.forward_flops},
                   {"backward_executed_flops", sums.backward_flops},
                   {"ffn_bytes_sent", sums.bytes_sent}};
  return json.dump();
}

}  // namespace annulus::launch
