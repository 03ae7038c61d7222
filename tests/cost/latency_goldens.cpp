#include "tests/cost/latency_goldens.h"

#include <fstream>
#include <stdexcept>

namespace annulus::test {
namespace {

ModelShape shape_of(const Json& model) {
  return {.hidden = model["hidden"],
          .heads = model["H"],
          .heads_kv = model["Hkv"],
          .head_dim = model["D"],
          .ffn = model["inter"],
          .ffn_inputs = model["ffi"],
          .vocab = model["vocab"],
          .layers = model["layers"],
          .moe = {.experts = model["E"],
                  .per_token = model["K"],
                  .ffn = model.value("moe_inter", 0),
                  .shared = model.value("n_shared", 0),
                  .shared_ffn = model.value("shared_inter", 0)}};
}

DecodeEntry entry_of(const Json& entry) {
  DecodeEntry result;
  if (entry.is_number()) {
    result.kv = entry;
  } else if (entry.size() == 2) {
    result.count = entry[0];
    result.kv = entry[1];
  } else {
    result.beams = true;
    result.prompt_batch = entry[0];
    result.decode_batch = entry[1];
    result.prompt = entry[2];
    result.generated = entry[3];
  }
  return result;
}

void fill_chunks(LatencyRequest& request, const Json& chunks, const Json& decodes) {
  for (const Json& chunk : chunks) request.chunks.push_back({chunk[0], chunk[1]});
  for (const Json& entry : decodes) request.decodes.push_back(entry_of(entry));
}

const Json& attention_goldens() {
  static const Json json = Json::parse(std::ifstream(ANNULUS_TEST_DATA "/genz_attention.json"));
  return json;
}

LatencyRequest request_of_row(const Json& columns, const Json& row, Stage stage) {
  Json cells;
  for (std::size_t i = 0; i < columns.size(); ++i) cells[columns[i].get<std::string>()] = row[i];
  LatencyRequest request;
  request.stage = stage;
  request.model = shape_of(attention_goldens()["models"][cells["model"].get<std::string>()]);
  request.system = {
      .name = "any", .tflops = 1, .memory_gib = 1, .memory_gib_s = 1, .link_gib_s = 1};
  request.tp = cells["tp"];
  request.ep = cells["ep"];
  request.sp = cells["sp"];
  if (stage == Stage::chunked) {
    const Json& step = attention_goldens()["chunked_cases"][cells["case"].get<std::string>()];
    fill_chunks(request, step["prefill_kv_sizes"], step["decode_kv_sizes"]);
    return request;
  }
  request.batch = cells["B"];
  if (stage == Stage::prefill) {
    request.seq = cells["S"];
  } else {
    request.prompt = cells["in"];
    request.generated = cells["out"];
    request.beam = cells["beam"];
  }
  return request;
}

}  // namespace

const Json& latency_goldens() {
  static const Json json = Json::parse(std::ifstream(ANNULUS_TEST_DATA "/genz_latency.json"));
  return json;
}

LatencyRequest request_of(const Json& point) {
  const Json& in = point["in"];
  const Json& system = in["system_params"];
  const std::string mode = point["mode"];
  LatencyRequest request;
  request.stage = parse_stage(in["stage"].get<std::string>());
  request.model = shape_of(latency_goldens()["models"][in["model"].get<std::string>()]);
  request.system = {.name = in["system"],
                    .tflops = system["Flops"],
                    .memory_gib = system["Memory_size"],
                    .memory_gib_s = system["Memory_BW"],
                    .link_gib_s = system["ICN"],
                    .link_latency_us = system.value("ICN_LL", 1.0),
                    .efficiency = in["eff"]};
  request.precision = parse_precision(in["bits"].get<std::string>());
  request.batch = in["B"];
  request.tp = in["tp"];
  request.ep = in["ep"];
  request.sp = in["sp"];
  request.pp = in["pp"];
  request.offload = in["offload"];
  request.mode = mode == "fork_corrected_mode" ? CostMode::corrected : CostMode::original;
  request.softmax_factor = mode == "upstream" ? 1 : 3;
  request.seq = in.value("S", 0);
  request.prompt = in.value("I", 0);
  request.generated = in.value("O", 0);
  request.beam = in.value("Bb", 1);
  if (request.stage == Stage::chunked) fill_chunks(request, in["p"], in["d"]);
  return request;
}

LatencyRequest request_called(const std::string& id) {
  for (const Json& point : latency_goldens()["points"]) {
    if (point["id"] == id) return request_of(point);
  }
  throw std::invalid_argument("no point " + id);
}

ModelShape deepseek_v3() {
  return {.hidden = 7168,
          .heads = 128,
          .heads_kv = 128,
          .head_dim = 192,
          .ffn = 18432,
          .vocab = 129280,
          .layers = 61,
          .moe = {.experts = 256, .per_token = 8, .ffn = 2048, .shared = 1, .shared_ffn = 2048},
          .layer_kinds = parse_layer_kinds("dense:3,moe:58"),
          .head_dim_v = 128,
          .latent = {.q_rank = 1536, .kv_rank = 512, .rope = 64}};
}

std::size_t for_each_whole_model(
    const std::function<void(const LatencyRequest&, std::int64_t, const std::string&)>& check) {
  std::size_t rows = 0;
  for (const Stage stage : {Stage::prefill, Stage::decode, Stage::chunked}) {
    const Json& table = attention_goldens()[std::string(name_of(stage))];
    const Json& columns = table["columns"];
    const auto golden = static_cast<std::size_t>(
        std::find(columns.begin(), columns.end(), "up_all_macs_model") - columns.begin());
    for (const Json& row : table["rows"]) {
      check(request_of_row(columns, row, stage), row[golden], row.dump());
      ++rows;
    }
  }
  return rows;
}

}  // namespace annulus::test
