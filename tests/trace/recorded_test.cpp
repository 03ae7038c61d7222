// Recorded calls of whole worlds: every item once, rows without overlap, ends of transfers that
// agree, and figures that add up. On threads and on MPI ranks.

#include "tests/support/each_world.h"

#include <annulus/annulus.h>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <span>
#include <string>
#include <tuple>
#include <vector>

namespace annulus::testing {
namespace {

std::string variable(const char* name, const char* otherwise) {
  const char* value = std::getenv(name);
  return value == nullptr ? otherwise : value;
}

/// ANNULUS_TEST_BACKEND (cpu), ANNULUS_TEST_TRANSPORT (auto) and ANNULUS_TEST_RANKS_PER_HOST, as of
/// the engine's tests.
SessionOptions place(const Problem& p, Algorithm algorithm) {
  SessionOptions options{.max_problem = p, .algorithm = algorithm};
  options.backend = variable("ANNULUS_TEST_BACKEND", "cpu");
  options.transport = variable("ANNULUS_TEST_TRANSPORT", "auto");
  options.ranks_per_host = std::stoi(variable("ANNULUS_TEST_RANKS_PER_HOST", "0"));
  return options;
}

/// One rank's tensors, where its session computes.
class Tensors {
 public:
  Tensors(const Problem& p, const Attention& attention, const Session& session, int rank) {
    const auto n = static_cast<std::int64_t>(attention.layout().positions(rank).size());
    if (session.device() >= 0) stream_ = DeviceStream(session.device());
    for (std::size_t i = 0; i < views_.size(); ++i) {
      const bool keys = i == 1 || i == 2 || i == 6 || i == 7;
      const std::int64_t heads = keys ? *p.heads_kv : p.heads;
      const std::int64_t dim = i == 8 ? 1 : p.head_dim;
      data_[i].assign(static_cast<std::size_t>(p.batch * n * heads * dim), 0.25F);
      views_[i] = i == 8 ? TensorView(data_[i].data(), DType::f32, {p.batch, heads, n})
                         : TensorView(data_[i].data(), DType::f32, {p.batch, n, heads, dim});
      if (session.device() < 0) continue;
      const auto bytes = std::as_bytes(std::span(data_[i]));
      copies_[i] = DeviceBytes(static_cast<std::int64_t>(bytes.size()), session.device());
      copies_[i].upload(bytes);
      views_[i].data = copies_[i].data();
    }
  }

  void run(Attention& a, Pass pass) const {
    const auto& [q, k, v, out, dout, dq, dk, dv, lse] = views_;
    if (pass == Pass::forward) {
      a.forward(q, k, v, out, lse, stream_.get());
    } else {
      a.backward(dout, q, k, v, out, lse, dq, dk, dv, stream_.get());
    }
  }

 private:
  std::array<std::vector<float>, 9> data_;
  std::array<DeviceBytes, 9> copies_;
  std::array<TensorView, 9> views_;
  DeviceStream stream_;
};

std::vector<Algorithm> algorithms() {
  return {Algorithm::ring, Algorithm::gather, Algorithm::ulysses};
}

/// What Perfetto would show.
struct Event {
  std::int64_t begin = 0, end = 0;  ///< ns
  std::string name;
  nlohmann::json args;
};

std::int64_t nanoseconds(const nlohmann::json& us) { return std::llround(us.get<double>() * 1000); }

/// By (rank, row).
std::map<std::tuple<int, int>, std::vector<Event>> rows_of(const nlohmann::json& trace) {
  std::map<std::tuple<int, int>, std::vector<Event>> rows;
  for (const auto& e : trace.at("traceEvents")) {
    if (e.at("ph") != "X") continue;
    const std::int64_t begin = nanoseconds(e.at("ts"));
    rows[{e.at("pid"), e.at("tid")}].push_back(
        {begin, begin + nanoseconds(e.at("dur")), e.at("name"), e.at("args")});
  }
  return rows;
}

void expect_no_overlap(const nlohmann::json& trace) {
  for (auto& [row, events] : rows_of(trace)) {
    std::ranges::sort(events, {}, [](const Event& e) { return std::tuple(e.begin, e.end); });
    for (std::size_t i = 1; i < events.size(); ++i) {
      EXPECT_LE(events[i - 1].end, events[i].begin)
          << "rank " << std::get<0>(row) << " row " << std::get<1>(row) << ": "
          << events[i - 1].name << " and " << events[i].name;
    }
    EXPECT_GE(events.front().begin, 0);
  }
}

void expect_items_once(const nlohmann::json& trace, const TracedRun& run) {
  std::map<std::tuple<int, int, std::string>, int> seen;  // call, rank, name
  std::size_t items = 0;
  for (const auto& [row, events] : rows_of(trace)) {
    for (const Event& e : events) {
      if (!e.args.contains("item")) continue;
      ++items;
      EXPECT_EQ((++seen[{e.args.at("call"), std::get<0>(row), e.name}]), 1) << e.name;
    }
  }
  std::size_t planned = 0;
  for (std::size_t c = 0; c < run.calls.size(); ++c) {
    for (std::size_t r = 0; r < run.calls[c].plans.size(); ++r) {
      const RankPlan& plan = run.calls[c].plans[r];
      planned += plan.items.size();
      for (std::int32_t i = 0; i < static_cast<std::int32_t>(plan.items.size()); ++i) {
        EXPECT_EQ((seen[{static_cast<int>(c), static_cast<int>(r), describe(plan, i)}]), 1)
            << describe(plan, i);
      }
    }
  }
  EXPECT_EQ(items, planned);
}

/// Both ends of each transfer are there, with the same bytes, and none is received before it was
/// sent. Ranks of a test share one clock.
void expect_matching_ends(const TracedCall& call) {
  using Name = std::tuple<int, int, std::int32_t>;
  std::map<Name, std::pair<const Transfer*, const ItemSample*>> sends;
  std::map<Name, std::pair<const Transfer*, const ItemSample*>> receives;
  for (std::size_t r = 0; r < call.plans.size(); ++r) {
    const int rank = static_cast<int>(r);
    for (const ItemSample& s : call.ranks[r].samples) {
      const Item& item = call.plans[r].items[static_cast<std::size_t>(s.item)];
      if (item.kind != ItemKind::transfer) continue;
      const Transfer& t = call.plans[r].transfers[static_cast<std::size_t>(item.payload)];
      const bool once = t.sends
                            ? sends.emplace(Name{rank, t.peer, t.tag}, std::pair(&t, &s)).second
                            : receives.emplace(Name{t.peer, rank, t.tag}, std::pair(&t, &s)).second;
      EXPECT_TRUE(once);
    }
  }
  EXPECT_EQ(sends.size(), receives.size());
  double slack = 0;
  for (const CallTrace& t : call.ranks) slack += t.clock_error_s;
  for (const auto& [name, sent] : sends) {
    const auto found = receives.find(name);
    ASSERT_NE(found, receives.end());
    EXPECT_EQ(sent.first->bytes, found->second.first->bytes);
    EXPECT_LE(sent.second->begin_s, found->second.second->end_s + slack);
  }
}

/// Samples lie in their call and keep the plan's edges; times add up. Events of a GPU resolve half
/// a microsecond.
void expect_sound(const RankPlan& plan, const CallTrace& trace) {
  ASSERT_EQ(trace.samples.size(), plan.items.size());
  const double slack = trace.clock_error_s > 0 ? 2e-6 : 0;
  for (std::size_t i = 0; i < plan.items.size(); ++i) {
    const ItemSample& s = trace.samples[i];
    EXPECT_EQ(s.item, static_cast<std::int32_t>(i));
    EXPECT_LE(trace.begin_s, s.begin_s + slack);
    EXPECT_LE(s.begin_s, s.end_s);
    EXPECT_LE(s.end_s, trace.end_s + slack);
    const Item& item = plan.items[i];
    for (const std::int32_t w : plan.waits(item)) {
      const bool arrives = trace.waits_inside && item.kind == ItemKind::attend &&
                           plan.items[static_cast<std::size_t>(w)].kind == ItemKind::transfer;
      if (arrives) continue;  // the kernel starts before its keys are there
      EXPECT_LE(trace.samples[static_cast<std::size_t>(w)].end_s, s.begin_s + slack);
    }
  }
  const Exposure e = exposure_of(plan, trace);
  EXPECT_NEAR(e.compute_s + e.exposed_s + e.idle_s, e.call_s, 1e-9);
  EXPECT_GE(e.transfer_s + 1e-12, e.exposed_s);
  if (plan.transfers.empty()) {
    EXPECT_EQ(e.exposed_s, 0);
  }
}

TracedRun record(Mesh& mesh, Attention& attention, const Tensors& tensors) {
  TracedRun run;
  attention.record(true);
  for (const Pass pass : {Pass::forward, Pass::backward}) {
    tensors.run(attention, pass);
    const CallTrace mine = attention.recorded(pass);
    expect_sound(attention.plan(pass).rank(mesh.rank()), mine);
    // Waiting, as the executor itself counts it, is a part of exposed time: transfers that end
    // while items are picked up are the rest.
    EXPECT_LE(attention.stats(pass).exposed_s,
              exposure_of(attention.plan(pass).rank(mesh.rank()), mine).exposed_s + 0.1);
    TracedCall call{std::string(name_of(pass)), {}, gather_traces(mesh, mine)};
    for (std::size_t r = 0; r < call.ranks.size(); ++r) {
      call.plans.push_back(attention.plan(pass).rank(static_cast<int>(r)));
    }
    if (mesh.rank() == 0) run.calls.push_back(call);
  }
  attention.record(false);
  run.clocks = clock_offsets(mesh);
  return run;
}

TEST(Recorded, TracesHoldEveryItemOnceOnRowsThatDoNotOverlap) {
  const Problem p = resolved({.batch = 1, .seq = 203, .heads = 4, .heads_kv = 2, .head_dim = 16});
  each_world([&](Mesh& mesh) {
    for (const Algorithm algorithm : algorithms()) {
      SCOPED_TRACE(fmt::format("{} on {}", name_of(algorithm), mesh.world()));
      Session session(mesh, place(p, algorithm));
      Attention attention(session, p, {.algorithm = algorithm});
      const Tensors tensors(p, attention, session, mesh.rank());
      const TracedRun run = record(mesh, attention, tensors);
      if (mesh.rank() != 0) {
        EXPECT_TRUE(run.clocks.empty());
        continue;
      }
      ASSERT_EQ(run.clocks.size(), static_cast<std::size_t>(mesh.world()));
      for (const ClockOffset& c : run.clocks) EXPECT_EQ(c.offset_s, 0);  // of one machine
      for (const TracedCall& call : run.calls) expect_matching_ends(call);
      const auto trace = nlohmann::json::parse(trace_json(std::span(&run, 1)));
      expect_items_once(trace, run);
      expect_no_overlap(trace);
    }
  });
}

TEST(Recorded, IsOfTheLastRecordedCallAlone) {
  const Problem p = resolved({.batch = 1, .seq = 64, .heads = 2, .head_dim = 8});
  each_world([&](Mesh& mesh) {
    Session session(mesh, place(p, Algorithm::automatic));
    Attention attention(session, p);
    const Tensors tensors(p, attention, session, mesh.rank());
    tensors.run(attention, Pass::forward);
    EXPECT_THROW((void)attention.recorded(Pass::forward), InvalidArgument);
    attention.record(true);
    tensors.run(attention, Pass::forward);
    const double first = attention.recorded(Pass::forward).begin_s;
    tensors.run(attention, Pass::forward);
    const double second = attention.recorded(Pass::forward).begin_s;
    EXPECT_LT(first, second);
    attention.record(false);
    tensors.run(attention, Pass::forward);
    (void)attention.transfers_alone(Pass::forward);
    const CallTrace again = attention.recorded(Pass::forward);
    EXPECT_NEAR(again.begin_s, second, again.clock_error_s > 0 ? 1e-4 : 0);  // placed once more
    EXPECT_THROW((void)attention.recorded(Pass::backward), InvalidArgument);
  });
}

}  // namespace
}  // namespace annulus::testing
