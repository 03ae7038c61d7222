// What doctor prints of GPUs, from surveys made up here, and the model it fits to copies.
#include "launch/doctor/gpu.h"

#include <annulus/error.h>
#include <annulus/gpu.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <vector>

namespace annulus::launch {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::Not;

constexpr std::int64_t kMiB = 1 << 20;

GpuSurvey two_gpus() {
  GpuSurvey s;
  s.driver = "580.1, CUDA 13.0";
  s.runtime = "13.0";
  for (int i = 0; i < 2; ++i) {
    s.gpus.push_back({.ordinal = i,
                      .name = "A GPU",
                      .capability = "9.0",
                      .bus_id = "0000:01:00.0",
                      .memory_bytes = 140 * 1024 * kMiB,
                      .sms = 132,
                      .copy_engines = 3});
  }
  s.peer_access = {{true, true}, {false, true}};
  s.links = {{.to = 0, .from = 1, .rates = {{kMiB, 105, 101}, {64 * kMiB, 357, 376}}}};
  s.copies_of = "pulls of GPU 0 from GPU 1";
  s.copy_samples = {{kMiB, 7, 46e-6}};
  s.copy_model = {3.5e-6, 380e9, 0.04};
  s.beside = {{"local copy", false, ""}, {"memset", false, ""}, {"stream write-value", true, ""}};
  s.queues = {"8 (default)", 8, true};
  s.counters = "CUPTI: a counter";
  return s;
}

TEST(DoctorGpu, PrintsWhatWasMeasured) {
  const std::string text = gpu_text(two_gpus());
  EXPECT_THAT(text, HasSubstr("GPU        1: A GPU, 140.0 GiB, 132 SMs, capability 9.0, 3 copy"));
  EXPECT_THAT(text, HasSubstr("driver 580.1, CUDA 13.0; built with CUDA 13.0"));
  EXPECT_THAT(text, HasSubstr("GPU 1 addresses memory of 0, 1, ...:  no yes"));
  EXPECT_THAT(
      text,
      HasSubstr("GPU 0 from 1, GB/s: pull 1 MiB 105, 64 MiB 357; push 1 MiB 101, 64 MiB 376"));
  EXPECT_THAT(text, HasSubstr("3.5 us a queued copy + bytes / 380 GB/s"));
  EXPECT_THAT(text, HasSubstr("every SM: stream write-value start; local copy, memset wait\n"));
  EXPECT_THAT(text, HasSubstr("8 (default); 8 waiting streams hold up a kernel of the next"));
  EXPECT_THAT(text, HasSubstr("GPU: CUPTI: a counter"));
  EXPECT_THAT(text, Not(HasSubstr("problem")));
}

TEST(DoctorGpu, HasRatesThroughNcclOrSaysWhyNot) {
  GpuSurvey s = two_gpus();
  EXPECT_THAT(gpu_text(s), Not(HasSubstr("NCCL")));
  EXPECT_TRUE(json::parse(gpu_json(s))["links"][0]["nccl_gb_s"].is_null());
  s.links.front().rates[0].nccl_gb_s = 40;
  s.links.front().rates[1].nccl_gb_s = 283;
  EXPECT_THAT(gpu_text(s), HasSubstr("GPU 0 from 1 through NCCL, GB/s: 1 MiB 40, 64 MiB 283\n"));
  EXPECT_EQ(json::parse(gpu_json(s))["links"][1]["nccl_gb_s"], 283.0);
  s.nccl_unavailable = "libnccl.so.2 is not found";
  EXPECT_THAT(gpu_text(s), HasSubstr("NCCL unavailable: libnccl.so.2 is not found\n"));
  s.links.clear();  // the section failed
  EXPECT_THAT(gpu_text(s), Not(HasSubstr("NCCL")));
}

TEST(DoctorGpu, SaysWhatOneGpuHasNot) {
  GpuSurvey s = two_gpus();
  s.gpus.pop_back();
  s.peer_access = {{true}};
  s.links.clear();
  s.links_unavailable = "one GPU: no links";
  s.beside.push_back({"peer copy", false, "one GPU"});
  s.counters_unavailable = "no permission";
  s.problems = {"queues: too slow"};
  const std::string text = gpu_text(s);
  EXPECT_THAT(text, HasSubstr("links      one GPU: no links\n"));
  EXPECT_THAT(text, HasSubstr("not tried: peer copy"));
  EXPECT_THAT(text, HasSubstr("GPU: unavailable: no permission"));
  EXPECT_THAT(text, HasSubstr("problem    queues: too slow"));
  EXPECT_THAT(text, Not(HasSubstr("peers")));
  const json parsed = json::parse(gpu_json(s));
  EXPECT_EQ(parsed["links"]["unavailable"], "one GPU: no links");
  EXPECT_EQ(parsed["starts_beside_full_kernel"]["peer copy"]["untried"], "one GPU");
}

TEST(DoctorGpu, JsonHoldsTheSameFigures) {
  const json parsed = json::parse(gpu_json(two_gpus()));
  EXPECT_EQ(parsed["devices"].size(), 2U);
  EXPECT_EQ(parsed["devices"][1]["sms"], 132);
  EXPECT_EQ(parsed["peer_access"], json({{true, true}, {false, true}}));
  EXPECT_EQ(parsed["links"][1]["bytes"], 64 * kMiB);
  EXPECT_EQ(parsed["links"][1]["push_gb_s"], 376.0);
  EXPECT_DOUBLE_EQ(parsed["copy_model"]["seconds_a_copy"].get<double>(), 3.5e-6);
  EXPECT_EQ(parsed["starts_beside_full_kernel"]["stream write-value"], true);
  EXPECT_EQ(parsed["queues"]["waiting_streams"], 8);
  EXPECT_EQ(parsed["counters"], "CUPTI: a counter");
}

TEST(DoctorGpu, SaysWhyThereIsNone) {
  GpuSurvey s;
  s.unavailable = "no driver";
  EXPECT_EQ(gpu_text(s), "GPU        no GPU: no driver\n");
  EXPECT_EQ(json::parse(gpu_json(s)), json({{"unavailable", "no driver"}}));
}

TEST(CopyModel, IsFoundAgainFromItsOwnTimes) {
  std::vector<CopySample> samples;
  for (const std::int64_t bytes : {64 * 1024L, kMiB, 16 * kMiB}) {
    samples.push_back({bytes, 7, 7 * (3.5e-6 + static_cast<double>(bytes) / 370e9)});
  }
  const CopyModel model = fit_copy_model(samples);
  EXPECT_NEAR(model.seconds_a_copy, 3.5e-6, 1e-12);
  EXPECT_NEAR(model.bytes_a_second, 370e9, 1e3);
  EXPECT_LT(model.worst_error, 1e-9);
}

TEST(CopyModel, FitsWhatWasMeasuredOnOneHost) {
  // Seven queued pulls of each size between two H200s.
  const std::vector<CopySample> samples{{64 << 10, 7, 25e-6},
                                        {256 << 10, 7, 30e-6},
                                        {512 << 10, 7, 36e-6},
                                        {1 << 20, 7, 46e-6},
                                        {4 << 20, 7, 104e-6}};
  const CopyModel model = fit_copy_model(samples);
  EXPECT_NEAR(model.seconds_a_copy, 3.5e-6, 0.2e-6);
  EXPECT_NEAR(model.bytes_a_second, 370e9, 20e9);
  EXPECT_LT(model.worst_error, 0.05);
}

TEST(CopyModel, RefusesSamplesThatSayNothing) {
  EXPECT_THROW(fit_copy_model({}), InvalidArgument);
  const std::vector<CopySample> one_size{{kMiB, 7, 46e-6}, {kMiB, 3, 20e-6}};
  EXPECT_THROW(fit_copy_model(one_size), InvalidArgument);
  const std::vector<CopySample> no_time{{kMiB, 7, 0}, {2 * kMiB, 3, 20e-6}};
  EXPECT_THROW(fit_copy_model(no_time), InvalidArgument);
  const std::vector<CopySample> faster{{kMiB, 7, 90e-6}, {64 * kMiB, 7, 20e-6}};
  EXPECT_THROW(fit_copy_model(faster), InvalidArgument);
}

}  // namespace
}  // namespace annulus::launch
