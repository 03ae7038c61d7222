// Plans of kernels that write dK and dV in the input's dtype: what they do without, and where they
// are as they were.

#include <annulus/plan.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <string_view>

namespace annulus {
namespace {

PlanRequest request_of(Algorithm algorithm, MeshShape mesh, std::int64_t heads_kv, bool rounded) {
  PlanRequest r;
  r.problem = {.batch = 2,
               .seq = 96,
               .heads = 8,
               .heads_kv = heads_kv,
               .head_dim = 8,
               .head_dim_v = 4,
               .dtype = DType::bf16};
  r.algorithm = algorithm;
  r.mesh = mesh;
  r.pass = Pass::backward;
  r.options.rounded_dkv = rounded;
  r.options.stage_caller = true;
  return r;
}

std::int64_t count(const RankPlan& plan, PrepareKind kind) {
  return std::count_if(plan.prepares.begin(), plan.prepares.end(),
                       [kind](const Prepare& p) { return p.kind == kind; });
}

const PlanSlot& slot_of(const RankPlan& plan, const SlotView& view) {
  return plan.slots[static_cast<std::size_t>(view.slot)];
}

TEST(RoundedKeyGradients, OfOneRankGoToTheCaller) {
  const RankPlan plan = make_plan(request_of(Algorithm::ring, {}, 2, true)).rank(0);
  ASSERT_EQ(plan.items.size(), 3U);  // row sums, the attend, dQ rounded
  EXPECT_EQ(plan.items[0].kind, ItemKind::prepare);
  EXPECT_EQ(plan.items[1].kind, ItemKind::attend);
  EXPECT_EQ(count(plan, PrepareKind::convert), 1);
  const Attend& a = plan.attends.front();
  EXPECT_TRUE(a.dkv_assign);
  EXPECT_EQ(slot_of(plan, a.dk).role, Role::dk);
  EXPECT_EQ(slot_of(plan, a.dv).role, Role::dv);
  // Row sums and dQ in fp32.
  EXPECT_EQ(plan.arena_bytes, 2 * 96 * 8 * 4 + 2 * 96 * 8 * 8 * 4);
  const RankPlan before = make_plan(request_of(Algorithm::ring, {}, 2, false)).rank(0);
  EXPECT_EQ(before.arena_bytes - plan.arena_bytes, 2 * 96 * 2 * 12 * 4);
  EXPECT_EQ(count(before, PrepareKind::convert), 3);
}

TEST(RoundedKeyGradients, OfUlyssesGoHomeAsTheyAre) {
  for (const int slices : {1, 2}) {
    PlanRequest r = request_of(Algorithm::ulysses, {.ring = 1, .ulysses = 2}, 4, true);
    r.options.ulysses_slices = slices;
    const RankPlan plan = make_plan(r).rank(1);
    EXPECT_EQ(count(plan, PrepareKind::convert), slices);  // dQ
    for (const Attend& a : plan.attends) EXPECT_EQ(slot_of(plan, a.dk).dtype, DType::bf16);
    r.options.rounded_dkv = false;
    const RankPlan before = make_plan(r).rank(1);
    EXPECT_EQ(before.arena_bytes - plan.arena_bytes, 2 * 96 * 2 * 12 * 4);
    EXPECT_EQ(before.bytes_sent, plan.bytes_sent);
  }
}

/// Where others add, and where several ranks read a key/value head.
TEST(RoundedKeyGradients, ThatAreAddedToStayInFp32) {
  const auto same = [](Algorithm algorithm, MeshShape mesh, std::int64_t heads_kv) {
    const Plan plain = make_plan(request_of(algorithm, mesh, heads_kv, false));
    const Plan rounded = make_plan(request_of(algorithm, mesh, heads_kv, true));
    for (int rank = 0; rank < plain.world(); ++rank) {
      EXPECT_EQ(plain.totals(rank), rounded.totals(rank));
      const RankPlan plan = rounded.rank(rank);
      for (const Attend& a : plan.attends) EXPECT_EQ(slot_of(plan, a.dk).dtype, DType::f32);
    }
  };
  same(Algorithm::ring, {.ring = 2}, 4);
  same(Algorithm::gather, {.ring = 2}, 4);
  same(Algorithm::hybrid, {.ring = 2, .ulysses = 2}, 4);
  same(Algorithm::ulysses, {.ring = 1, .ulysses = 4}, 2);
}

}  // namespace
}  // namespace annulus
