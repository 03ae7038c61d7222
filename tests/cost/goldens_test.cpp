// Every row and every attention column of tests/data/genz_attention.json, as integers.
// up_all_macs_model (projections, FFN, embeddings) is not ours to price.
#include <annulus/cost.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <fstream>
#include <map>
#include <string>

namespace annulus {
namespace {

using Json = nlohmann::json;

const Json& goldens() {
  static const Json json = Json::parse(std::ifstream(ANNULUS_TEST_DATA "/genz_attention.json"));
  return json;
}

/// A row by column name. Asking for a column that is not there throws.
class Row {
 public:
  Row(const Json& columns, const Json& values) {
    for (std::size_t i = 0; i < columns.size(); ++i) cells_[columns[i]] = values[i];
  }
  std::int64_t integer(const std::string& column) const {
    return cells_.at(column).get<std::int64_t>();
  }
  std::string text(const std::string& column) const { return cells_.at(column); }
  std::string describe() const { return Json(cells_).dump(); }

 private:
  std::map<std::string, Json> cells_;
};

CostRequest request_for(const Row& row) {
  const Json& model = goldens()["models"][row.text("model")];
  CostRequest request;
  request.heads = model["H"];
  request.heads_kv = model["Hkv"];
  request.head_dim = model["D"];
  request.head_dim_v = model["D"];
  request.layers = model["layers"];
  request.tp = row.integer("tp");
  request.sp = row.integer("sp");
  request.ep = row.integer("ep");
  return request;
}

void expect_original(const Row& row, const CostReport& report) {
  const MacAccounting& up = report.original;
  EXPECT_EQ(up.logit_macs_rank_layer, row.integer("up_logit_macs_layer"));
  EXPECT_EQ(up.attend_macs_rank_layer, row.integer("up_attend_macs_layer"));
  EXPECT_EQ(up.attention_macs_rank_model, row.integer("up_attn_macs_model"));
  EXPECT_EQ(2 * up.attention_macs_rank_model, row.integer("up_attn_ops2x_model"));
  // the fork's original mode: three times upstream
  const MacAccounting& fork = report.original_x3;
  EXPECT_EQ(fork.logit_macs_rank_layer, 3 * row.integer("up_logit_macs_layer"));
  EXPECT_EQ(fork.attend_macs_rank_layer, 3 * row.integer("up_attend_macs_layer"));
  EXPECT_EQ(fork.attention_macs_rank_model, 3 * row.integer("up_attn_macs_model"));
}

void expect_corrected(const Row& row, const CostReport& report) {
  const MacAccounting& corrected = report.corrected;
  EXPECT_EQ(corrected.logit_macs_rank_layer, row.integer("fx_corr_macs_layer_per_op"));
  EXPECT_EQ(corrected.attend_macs_rank_layer, row.integer("fx_corr_macs_layer_per_op"));
  EXPECT_EQ(corrected.attention_macs_rank_model, row.integer("fx_corr_attn_macs_model"));
  const MacAccounting& x3 = report.corrected_x3;
  EXPECT_EQ(x3.logit_macs_rank_layer, row.integer("em_corr_x3_layer_per_op"));
  EXPECT_EQ(x3.attend_macs_rank_layer, row.integer("em_corr_x3_layer_per_op"));
  EXPECT_EQ(x3.attention_macs_rank_model, row.integer("em_corr_x3_attn_model"));
  EXPECT_EQ(2 * x3.attention_macs_rank_model, row.integer("em_corr_x3_attn_ops2x_model"));
}

void expect_exact(const Row& row, const CostReport& report) {
  EXPECT_EQ(report.exact.full_flops_group_layer, row.integer("fx_exact_full_flops_layer"));
  EXPECT_EQ(report.exact.masked_flops_group_layer, row.integer("fx_exact_causal_flops_layer"));
}

/// Checks every row of a table; returns their number. `fill` sets what the stage needs.
template <typename Fill>
std::size_t check_table(const std::string& name, Fill fill) {
  const Json& table = goldens()[name];
  for (const Json& values : table["rows"]) {
    const Row row(table["columns"], values);
    SCOPED_TRACE(row.describe());
    CostRequest request = request_for(row);
    fill(row, request);
    const CostReport report = price(request);
    expect_original(row, report);
    expect_corrected(row, report);
    expect_exact(row, report);
  }
  return table["rows"].size();
}

DecodeEntry decode_entry(const Json& entry) {
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

TEST(CostGoldens, PrefillMatchesEveryRow) {
  const std::size_t rows = check_table("prefill", [](const Row& row, CostRequest& request) {
    request.batch = row.integer("B");
    request.seq = row.integer("S");
    EXPECT_EQ(row.integer("M"), request.seq);
    EXPECT_EQ(row.integer("N_orig"), request.seq / request.sp);
  });
  EXPECT_EQ(rows, 514U);
}

TEST(CostGoldens, DecodeMatchesEveryRow) {
  const std::size_t rows = check_table("decode", [](const Row& row, CostRequest& request) {
    request.stage = Stage::decode;
    request.batch = row.integer("B");
    request.prompt = row.integer("in");
    request.generated = row.integer("out");
    request.beam = row.integer("beam");
  });
  EXPECT_EQ(rows, 538U);
}

TEST(CostGoldens, ChunkedMatchesEveryRow) {
  const std::size_t rows = check_table("chunked", [](const Row& row, CostRequest& request) {
    const Json& step = goldens()["chunked_cases"][row.text("case")];
    request.stage = Stage::chunked;
    for (const Json& chunk : step["prefill_kv_sizes"])
      request.chunks.push_back({chunk[0], chunk[1]});
    for (const Json& entry : step["decode_kv_sizes"])
      request.decodes.push_back(decode_entry(entry));
  });
  EXPECT_EQ(rows, 293U);
}

TEST(CostGoldens, TrueMlaMatchesEveryRow) {
  const Json& table = goldens()["deepseek_v3_true_mla"];
  for (const Json& values : table["rows"]) {
    const Row row(table["columns"], values);
    SCOPED_TRACE(row.describe());
    const std::string kind = row.text("kind");
    const bool absorbed = kind == "decode_absorbed_1tok";
    CostRequest request;
    request.heads = request.heads_kv = 128;
    request.head_dim = absorbed ? 576 : 192;
    request.head_dim_v = absorbed ? 512 : 128;
    if (kind == "prefill_expanded") {
      request.seq = row.integer("S_or_kv");
    } else {
      request.stage = Stage::decode;
      request.prompt = row.integer("S_or_kv");
    }
    const ExactAccounting exact = price(request).exact;
    EXPECT_EQ(exact.full_flops_group_layer, row.integer("full_flops_layer"));
    EXPECT_EQ(exact.masked_flops_group_layer, row.integer("causal_or_incl_self_flops_layer"));
  }
  EXPECT_EQ(table["rows"].size(), 12U);
}

TEST(CostGoldens, NoTableIsLeftOut) {
  std::vector<std::string> tables;
  for (const auto& [name, value] : goldens().items()) {
    if (value.contains("rows")) tables.push_back(name);
  }
  EXPECT_THAT(tables, testing::UnorderedElementsAre("prefill", "decode", "chunked",
                                                    "deepseek_v3_true_mla"));
}

}  // namespace
}  // namespace annulus
