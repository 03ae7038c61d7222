#include "launch/request/latency.h"
#include "launch/options/sources.h"
#include "launch/request/problem.h"
#include "launch/request/system.h"
#include "tests/launch/scratch.h"

#include <gmock/gmock.h>

namespace annulus::launch::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr const char* kNobody[] = {nullptr};

Settings settings_of(std::vector<std::string> words) {
  Settings settings;
  read_options(words, kNobody, settings);
  return settings;
}

class SystemFile : public Scratch {};

const std::string kSource = ANNULUS_SOURCE_DIR;
const std::string kLlama = kSource + "/configs/models/llama3_8b.json";
const std::string kH100 = kSource + "/configs/systems/h100.cfg";

TEST_F(SystemFile, EveryShippedSystemReads) {
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kSource + "/configs/systems")) {
    const SystemRates rates = read_system_file(entry.path());
    EXPECT_GT(rates.tflops, 100) << entry.path();
    EXPECT_EQ(rates.efficiency, 1);
    ++files;
  }
  EXPECT_EQ(files, 14);  // GenZ's 13 and the H200
}

TEST_F(SystemFile, RefusesWhatIsUnknownMissingOrNoNumber) {
  const auto holds = [&](const char* text, const char* message) {
    EXPECT_THAT(refusal([&] { read_system_file(write("s.cfg", text)); }), HasSubstr(message));
  };
  holds("[system]\ntflops = 1\nmemory = 3\n", "s.cfg:3: 'memory = 3'");
  holds("tflops = -1\n", "s.cfg:1: tflops: '-1'");
  holds("tflops = 1\ntflops = 2\n", "given before");
  holds("tflops = 1\nmemory_gib = 1\nmemory_gib_s = 1\n", "link_gib_s: missing");
  EXPECT_THAT(refusal([&] {
                system_of(settings_of({"--system", "h1000"}));
              }),
              HasSubstr("--system: 'h1000' is not known"));
}

TEST_F(SystemFile, GivesCostItsPeakAndPlanItsRates) {
  const Settings s = settings_of({"--seq", "80", "--system", kH100, "--precision", "bf16"});
  const CostRequest request = cost_request_of(s);
  EXPECT_EQ(request.peak_tflops, 989);
  EXPECT_THAT(request.peak_source, HasSubstr("h100.cfg"));
  EXPECT_GT(price(request).predicted_attention_s, 0);
  EXPECT_EQ(machine_of(s).flops_per_s, 989e12);
  // f32 at half the rate, as GenZ takes it; efficiency on top
  const Settings slow = settings_of({"--seq", "80", "--system", kH100, "--efficiency", "0.5"});
  EXPECT_EQ(cost_request_of(slow).peak_tflops, 989.0 / 4);
}

TEST_F(SystemFile, ModelFileGivesLatencyItsShape) {
  const std::vector<LatencyRequest> requests = latency_requests_of(
      settings_of({"--system", kH100, "--model", kLlama, "--seq", "1k", "--generated", "7"}));
  ASSERT_EQ(requests.size(), 2U);
  EXPECT_EQ(requests[0].model.hidden, 4096);
  EXPECT_EQ(requests[0].model.ffn, 14336);
  EXPECT_EQ(requests[0].model.vocab, 128256);
  EXPECT_EQ(requests[0].precision, Precision::bf16);
  EXPECT_EQ(requests[0].seq, 1024);
  EXPECT_EQ(requests[1].stage, Stage::decode);
  EXPECT_EQ(requests[1].prompt, 1024);
  EXPECT_EQ(requests[1].generated, 7);
}

TEST_F(SystemFile, MissingWidthsAreRefusedByName) {
  EXPECT_THAT(refusal([&] {
                latency_requests_of(settings_of({"--system", kH100, "--seq", "80"}));
              }),
              HasSubstr("--hidden: required"));
  EXPECT_THAT(refusal([&] {
                latency_requests_of(settings_of({"--seq", "80"}));
              }),
              HasSubstr("--system"));
}

TEST_F(SystemFile, MixturesOfExpertsBringTheirExpertsAndLayers) {
  const auto model = write("moe.json", R"({"hidden_size": 64, "num_attention_heads": 4,
      "num_hidden_layers": 5, "intermediate_size": 128, "vocab_size": 100, "n_routed_experts": 8,
      "num_experts_per_tok": 2, "moe_intermediate_size": 32, "n_shared_experts": 3,
      "first_k_dense_replace": 2})");
  const auto settings = [&](const char* ep) {
    return settings_of({"--system", kH100, "--seq", "80", "--model", model.string(), "--ep", ep});
  };
  const LatencyRequest request = latency_requests_of(settings("4"))[0];
  EXPECT_EQ(request.ep, 4);
  EXPECT_EQ(request.model.moe.experts, 8);
  EXPECT_EQ(request.model.moe.per_token, 2);
  EXPECT_EQ(request.model.moe.ffn, 32);
  EXPECT_EQ(request.model.moe.shared, 3);
  EXPECT_EQ(request.model.moe.shared_ffn, 32);
  ASSERT_EQ(request.model.layer_kinds.size(), 2U);
  EXPECT_EQ(request.model.layer_kinds[0].count, 2);
  EXPECT_EQ(request.model.layer_kinds[1].kind, LayerKind::moe);
  EXPECT_THAT(refusal([&] { latency_requests_of(settings("9")); }), HasSubstr("--ep: '9'"));
  EXPECT_EQ(request.rule, DimsRule::genz);
}

TEST_F(SystemFile, ModelsThatGenzCannotDescribeGoByTheirOwnDimensions) {
  const std::vector<std::string> words{
      "--system", kH100, "--seq", "80", "--model", kSource + "/configs/models/deepseek_v3.json"};
  const LatencyRequest request = latency_requests_of(settings_of(words))[0];
  EXPECT_EQ(request.rule, DimsRule::model);
  EXPECT_EQ(request.model.head_dim_v, 128);
  EXPECT_EQ(request.model.latent.q_rank, 1536);
  EXPECT_EQ(request.model.latent.kv_rank, 512);
  EXPECT_EQ(request.model.latent.rope, 64);
  std::vector<std::string> beside = words;
  beside.insert(beside.end(),
                {"--legacy-model", kSource + "/configs/models/deepseek_v3_genz.json"});
  const std::vector<LatencyRequest> legacy = legacy_requests_of(settings_of(beside));
  ASSERT_EQ(legacy.size(), 2U);
  EXPECT_EQ(legacy[1].stage, Stage::decode);
  EXPECT_EQ(legacy[1].rule, DimsRule::genz);
  EXPECT_EQ(legacy[1].model.head_dim, 56);
  EXPECT_EQ(legacy[1].model.value_dim(), 56);
}

TEST_F(SystemFile, PolicyGoesWithoutAMode) {
  const Settings legacy = settings_of(
      {"--seq", "80", "--policy", "legacy", "--layers", "3", "--layer-kinds", "dense:1,moe:2"});
  const CostRequest request = cost_request_of(legacy);
  EXPECT_EQ(request.policy, CostPolicy::legacy);
  EXPECT_EQ(request.layer_kinds.size(), 2U);
  EXPECT_THAT(
      refusal([&] {
        cost_request_of(settings_of({"--seq", "80", "--policy", "legacy", "--mode", "original"}));
      }),
      HasSubstr("--mode: 'original' cannot go with policy = legacy"));
  EXPECT_THAT(refusal([&] {
                cost_request_of(settings_of({"--seq", "8", "--layer-kinds", "dense:2"}));
              }),
              HasSubstr("has 2 layers, the model 1"));
  EXPECT_THROW(cost_request_of(settings_of({"--seq", "8", "--layer-kinds", "mamba:1"})),
               Unsupported);
}

}  // namespace
}  // namespace annulus::launch::test
