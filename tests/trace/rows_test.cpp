// Gathered samples to rows that can be drawn, and their JSON.

#include "runtime/cost/trace/rows.h"
#include "tests/trace/hand_made.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include <string>
#include <vector>

namespace annulus::test {
namespace {

using trace::Drawn;
using trace::Row;
using trace::Rows;

constexpr std::int64_t kSecond = 1'000'000'000;

/// "0-3 3-5" in seconds.
std::string words(const std::vector<Drawn>& row) {
  std::string text;
  for (const Drawn& d : row) {
    text += fmt::format("{}{}-{}", text.empty() ? "" : " ", d.begin / kSecond, d.end / kSecond);
  }
  return text;
}

TracedCall two_ranks() {
  const HandMade zero = HandMade(0).computes().receives(1, 0).receives(1, 1).sends(1, 0);
  const HandMade one = HandMade(1).computes().sends(0, 0).sends(0, 1).receives(0, 0);
  return {"forward",
          {zero.plan(), one.plan()},
          {call(0, 9, {{0, 8}, {0, 3}, {0, 5}, {1, 4}}),
           // Its clock is 100 ahead; sends are flags, answered late; the receive pulls.
           call(100, 109, {{100, 101}, {100, 109, 108}, {101, 109, 108}, {102, 106}})}};
}

const std::vector<ClockOffset> kClocks{{0, 0}, {100, 1e-6}};

TEST(TraceRows, LineUpWhatIsUnderWayTogether) {
  const std::vector<Rows> rows = trace::rows_of(two_ranks(), kClocks);
  EXPECT_EQ(words(rows[0].at(Row{})), "0-8");
  EXPECT_EQ(words(rows[0].at(Row{true, 1, false})), "0-3 3-5");
  EXPECT_EQ(rows[0].at(Row{true, 1, false})[1].started, 0);
}

TEST(TraceRows, DrawFlagsWhereTheOtherEndMovedTheData) {
  const std::vector<Rows> rows = trace::rows_of(two_ranks(), kClocks);
  EXPECT_EQ(words(rows[1].at(Row{true, 0, true})), "0-3 3-5");
  EXPECT_EQ(rows[1].at(Row{true, 0, true})[1].started, kSecond);
}

TEST(TraceRows, AreOnTheClockOfRankZero) {
  const std::vector<Rows> rows = trace::rows_of(two_ranks(), kClocks);
  EXPECT_EQ(words(rows[1].at(Row{})), "0-1");
  EXPECT_EQ(words(rows[1].at(Row{true, 0, false})), "2-6");
}

TEST(TraceJson, NamesProcessesRowsAndItems) {
  const std::vector<TracedRun> runs{{"", kClocks, {two_ranks()}}};
  const auto json = nlohmann::json::parse(trace_json(runs));
  std::vector<std::string> names;
  for (const auto& e : json.at("traceEvents")) {
    if (e.at("ph") == "M" && e.at("name") != "process_sort_index" &&
        e.at("name") != "thread_sort_index") {
      names.push_back(
          fmt::format("{} {}", e.at("pid").get<int>(), e.at("args").at("name").get<std::string>()));
    }
    if (e.at("ph") == "X" && e.at("cat") == "transfer" && e.at("args").at("item") == 2) {
      EXPECT_EQ(e.at("name"), describe(runs[0].calls[0].plans[e.at("pid").get<std::size_t>()], 2));
      EXPECT_EQ(e.at("ts"), 3e6);
      EXPECT_EQ(e.at("dur"), 2e6);
      EXPECT_EQ(e.at("args").at("bytes"), 101);
    }
  }
  EXPECT_THAT(names, testing::ElementsAre("0 rank 0", "0 calls", "0 compute", "0 link to rank 1",
                                          "0 link from rank 1", "1 rank 1", "1 calls", "1 compute",
                                          "1 link to rank 0", "1 link from rank 0"));
  const auto& rank = json.at("otherData").at("runs")[0].at("calls")[0].at("ranks")[0];
  EXPECT_EQ(rank.at("exposed_s"), 0);
  EXPECT_EQ(json.at("otherData").at("runs")[0].at("clocks")[1].at("offset_s"), 100);
}

TEST(TraceJson, PutsRunsOneAfterTheOther) {
  TracedRun late{"seq 2", kClocks, {two_ranks()}};
  for (ClockOffset& c : late.clocks) c.offset_s -= 5000;  // an hour later
  const std::vector<TracedRun> runs{{"seq 1", kClocks, {two_ranks()}}, late};
  const auto json = nlohmann::json::parse(trace_json(runs));
  for (const auto& e : json.at("traceEvents")) {
    if (e.at("ph") != "X" || e.at("cat") != "call" || e.at("pid") != 0) continue;
    const bool second = e.at("args").at("run") == 1;
    EXPECT_EQ(e.at("name"), second ? "forward, seq 2" : "forward, seq 1");
    EXPECT_EQ(e.at("ts"), second ? 9e6 + 100 : 0);
  }
}

TEST(TraceJson, OfNothingIsValid) {
  EXPECT_TRUE(nlohmann::json::parse(trace_json({})).at("traceEvents").empty());
}

}  // namespace
}  // namespace annulus::test
