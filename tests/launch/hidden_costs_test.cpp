// What `bench` reports of a call's hidden costs: on GPUs figures with their units, elsewhere null.

#include "tests/launch/small_report.h"

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

namespace annulus::launch {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

BenchReport report() {
  BenchReport r = small_report();
  r.forward_transfers = 14;
  return r;
}

TEST(HiddenCosts, AreNullWhereThereAreNone) {
  const auto json = nlohmann::json::parse(to_json(report()));
  const auto& forward = json.at("timing").at("forward");
  for (const char* key : {"host_median_s", "host_again_median_s", "cold_median_s", "graph_median_s",
                          "graph_host_median_s", "graph_host_again_median_s"}) {
    EXPECT_TRUE(forward.at(key).is_null()) << key;
  }
  EXPECT_EQ(forward.at("median_s"), 0.002);
  EXPECT_TRUE(json.at("timing").at("backward").is_null());
  EXPECT_EQ(json.at("comm").at("forward_transfers_per_rank"), 14);
  EXPECT_THAT(to_text(report()), Not(HasSubstr("cold")));
}

TEST(HiddenCosts, StandBesideTheTimingOfTheirPass) {
  BenchReport r = report();
  r.forward_hidden = HiddenCosts{.host_s = 45e-6,
                                 .host_again_s = 21e-6,
                                 .cold_s = 0.0025,
                                 .graph_s = 0.0019,
                                 .graph_host_s = 12e-6,
                                 .graph_host_again_s = 7e-6,
                                 .no_graph = {}};
  const auto forward = nlohmann::json::parse(to_json(r)).at("timing").at("forward");
  EXPECT_EQ(forward.at("host_median_s"), 45e-6);
  EXPECT_EQ(forward.at("host_again_median_s"), 21e-6);
  EXPECT_EQ(forward.at("graph_host_again_median_s"), 7e-6);
  EXPECT_EQ(forward.at("cold_median_s"), 0.0025);
  EXPECT_EQ(forward.at("graph_median_s"), 0.0019);
  EXPECT_EQ(forward.at("graph_host_median_s"), 12e-6);
  EXPECT_THAT(to_text(r),
              HasSubstr("forward   cold 0.0025 s; host 45 us a call of 14 transfers, 21 "
                        "right behind another; replayed 0.0019 s, host 12 us a "
                        "replay, 7 behind another"));
}

TEST(HiddenCosts, SayWhyACallWasNotCaptured) {
  BenchReport r = report();
  r.forward_hidden = HiddenCosts{.host_s = 45e-6,
                                 .cold_s = 0.0025,
                                 .graph_s = {},
                                 .graph_host_s = {},
                                 .graph_host_again_s = {},
                                 .no_graph = "the driver is old"};
  EXPECT_TRUE(
      nlohmann::json::parse(to_json(r)).at("timing").at("forward").at("graph_median_s").is_null());
  EXPECT_THAT(to_text(r), HasSubstr("no graph: the driver is old"));
}

}  // namespace
}  // namespace annulus::launch
