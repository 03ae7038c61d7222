#include "launch/options/sources.h"
#include "tests/launch/scratch.h"

#include <gmock/gmock.h>

namespace annulus::launch::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class ModelFile : public Scratch {
 protected:
  Settings read(std::string_view text) const {
    Settings settings;
    read_model(write("m.json", text), settings);
    return settings;
  }
};

TEST_F(ModelFile, FillsGroupedHeads) {
  const Settings s = read(R"({"hidden_size": 3072, "num_attention_heads": 24,
      "num_key_value_heads": 8, "head_dim": 128, "num_hidden_layers": 28, "vocab_size": 128256})");
  EXPECT_EQ(s.integer("heads"), 24);
  EXPECT_EQ(s.integer("heads_kv"), 8);
  EXPECT_EQ(s.integer("head_dim"), 128);
  EXPECT_EQ(s.integer("layers"), 28);
  EXPECT_FALSE(s.has("head_dim_v"));
  EXPECT_EQ(s.source("heads"), "model");
}

TEST_F(ModelFile, DerivesHeadDimAndHeadsKv) {
  const Settings s = read(R"({"hidden_size": 4096, "num_attention_heads": 32, "head_dim": null,
      "num_hidden_layers": 32, "sliding_window": 4096})");
  EXPECT_EQ(s.integer("head_dim"), 128);
  EXPECT_EQ(s.integer("heads_kv"), 32);
  EXPECT_EQ(s.integer("window_left"), 4095);
}

TEST_F(ModelFile, ExpandsLatentAttention) {
  const Settings s = read(R"({"hidden_size": 7168, "num_attention_heads": 128,
      "num_key_value_heads": 128, "kv_lora_rank": 512, "q_lora_rank": 1536, "qk_nope_head_dim": 128,
      "qk_rope_head_dim": 64, "v_head_dim": 128, "num_hidden_layers": 61})");
  EXPECT_EQ(s.integer("heads"), 128);
  EXPECT_EQ(s.integer("heads_kv"), 128);
  EXPECT_EQ(s.integer("head_dim"), 192);
  EXPECT_EQ(s.integer("head_dim_v"), 128);
}

TEST_F(ModelFile, KnowsTheRouterOfAFamily) {
  const Settings deepseek = read(R"({"model_type": "deepseek_v3", "num_attention_heads": 4,
      "head_dim": 8, "num_hidden_layers": 1, "n_routed_experts": 16, "n_group": 4, "topk_group": 2,
      "norm_topk_prob": true})");
  EXPECT_EQ(deepseek.text("router"), "deepseek_v3");
  EXPECT_EQ(deepseek.integer("groups"), 4);
  EXPECT_EQ(deepseek.integer("groups_kept"), 2);
  EXPECT_EQ(deepseek.text("renormalize"), "true");
  const Settings qwen = read(R"({"model_type": "qwen3_moe", "num_attention_heads": 4,
      "head_dim": 8, "num_hidden_layers": 1, "num_experts": 16, "norm_topk_prob": false})");
  EXPECT_EQ(qwen.text("router"), "qwen3");
  EXPECT_EQ(qwen.text("renormalize"), "false");
  const Settings llama = read(R"({"model_type": "llama", "num_attention_heads": 4, "head_dim": 8,
      "num_hidden_layers": 1})");
  EXPECT_FALSE(llama.has("router"));
}

TEST_F(ModelFile, SaysWhichLayersAreWhat) {
  const auto kinds = [&](const std::string& fields) {
    const Settings s = read(R"({"num_attention_heads": 4, "head_dim": 8, )" + fields + "}");
    return s.has("layer_kinds") ? s.text("layer_kinds") : "none";
  };
  EXPECT_EQ(kinds(R"("num_hidden_layers": 8)"), "none");
  EXPECT_EQ(kinds(R"("num_hidden_layers": 8, "num_experts": 1)"), "none");
  EXPECT_EQ(kinds(R"("num_hidden_layers": 32, "num_local_experts": 8)"), "moe:32");
  EXPECT_EQ(kinds(R"("num_hidden_layers": 61, "n_routed_experts": 256, "moe_layer_freq": 1,
      "first_k_dense_replace": 3)"),
            "dense:3,moe:58");
  EXPECT_EQ(kinds(R"("num_hidden_layers": 6, "num_experts": 4, "decoder_sparse_step": 2,
      "mlp_only_layers": [3])"),
            "dense:1,moe:1,dense:3,moe:1");
  // Jamba: attention at 4 of 8, experts at odd layers
  EXPECT_EQ(kinds(R"("num_hidden_layers": 8, "num_experts": 16, "attn_layer_period": 8,
      "attn_layer_offset": 4, "expert_layer_period": 2, "expert_layer_offset": 1)"),
            "mamba:4,dense:1,mamba:3");
  EXPECT_EQ(kinds(R"("num_hidden_layers": 3, "layer_types": ["full_attention",
      "linear:attention, ", "sliding_attention"])"),
            "dense:1,linear_attention__:1,dense:1");
}

TEST_F(ModelFile, LayersThatWereGivenAreNotTheModels) {
  Settings s;
  s.set("layers", {.text = "2", .origin = Origin::command_line, .where = "--layers", .folder = {}});
  read_model(write("m.json", R"({"num_attention_heads": 4, "head_dim": 8, "num_hidden_layers": 32,
      "num_local_experts": 8, "num_experts_per_tok": 2})"),
             s);
  EXPECT_EQ(s.integer("experts"), 8);
  EXPECT_EQ(s.integer("top_k"), 2);
  EXPECT_FALSE(s.has("layer_kinds"));
}

TEST_F(ModelFile, RefusesWhatIsMissingOrWronglyTyped) {
  struct Case {
    const char* text;
    const char* holds;
  };
  const Case cases[] = {
      {"", "not a JSON object"},
      {"[]", "not a JSON object"},
      {R"({"num_attention_heads": 24)", "cut off"},
      {R"({"num_hidden_layers": 4, "head_dim": 8})", "num_attention_heads: missing"},
      {R"({"num_attention_heads": "24", "num_hidden_layers": 4})", "num_attention_heads: '\"24\"'"},
      {R"({"num_attention_heads": 24.5, "num_hidden_layers": 4})", "num_attention_heads: '24.5'"},
      {R"({"num_attention_heads": -24, "num_hidden_layers": 4})", "num_attention_heads: '-24'"},
      {R"({"num_attention_heads": 24, "head_dim": 8})", "num_hidden_layers: missing"},
      {R"({"num_attention_heads": 24, "num_hidden_layers": 4})", "hidden_size: missing"},
      {R"({"num_attention_heads": 24, "num_hidden_layers": 4, "hidden_size": 100})", "multiple"},
      {R"({"num_attention_heads": 24, "num_hidden_layers": 4, "kv_lora_rank": 512})",
       "qk_nope_head_dim: missing"},
  };
  for (const Case& c : cases) {
    EXPECT_THAT(refusal([&] { read(c.text); }),
                AllOf(StartsWith((folder() / "m.json").string()), HasSubstr(c.holds)))
        << c.text;
  }
  Settings settings;
  EXPECT_THAT(refusal([&] { read_model(folder(), settings); }), HasSubstr("not a regular file"));
}

}  // namespace
}  // namespace annulus::launch::test
