#include "comm/mesh.h"
#include "moe/exchange.h"
#include "tests/support/each_world.h"
#include "tests/support/random.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <vector>

namespace annulus::testing {
namespace {

using moe::ArrivedRows;
using moe::ExchangePlan;
using moe::ExchangeShape;
using moe::Routing;

constexpr std::int64_t kExperts = 40;
constexpr std::int64_t kWidth = 3;          // int32 a row
const MeshOptions kQuick{.timeout_s = 20};  // a wrong transfer ends soon

Routing random_routing(std::mt19937_64& generator, std::int64_t tokens, std::int64_t k) {
  Routing r{.tokens = tokens, .k = k, .experts = kExperts, .indices = {}, .weights = {}};
  std::vector<std::int32_t> order(kExperts);
  for (std::size_t e = 0; e < order.size(); ++e) order[e] = static_cast<std::int32_t>(e);
  for (std::int64_t t = 0; t < tokens; ++t) {
    std::ranges::shuffle(order, generator);
    for (std::int64_t s = 0; s < k; ++s) {
      const bool none = random_between(generator, 0, 4) == 0;
      r.indices.push_back(none ? -1 : order[static_cast<std::size_t>(s)]);
      r.weights.push_back(none ? 0.0F : static_cast<float>(100 * t + s + 1));
    }
  }
  return r;
}

/// A row says whose it is: rank, token, and the same again.
std::vector<std::int32_t> rows_of(int rank, std::int64_t tokens) {
  std::vector<std::int32_t> x;
  for (std::int64_t t = 0; t < tokens; ++t) {
    x.insert(x.end(), {rank, static_cast<std::int32_t>(t), rank * 1000 + static_cast<int>(t)});
  }
  return x;
}

struct Memory {
  explicit Memory(std::int64_t capacity)
      : rows(static_cast<std::size_t>(capacity * kWidth), -7),
        staging(rows),
        weights(static_cast<std::size_t>(capacity), -7.0F),
        unique(static_cast<std::size_t>(capacity), -7) {}
  ArrivedRows arrived() {
    return {reinterpret_cast<std::byte*>(rows.data()), reinterpret_cast<std::byte*>(staging.data()),
            weights.data(), unique.data()};
  }
  std::vector<std::int32_t> rows, staging;
  std::vector<float> weights;
  std::vector<std::int64_t> unique;
};

/// Dispatch and combine of random routings: rows arrive by expert with their weights, go back to
/// where they came from, and scalars with them.
void expect_identity(Mesh& mesh, std::uint64_t seed, bool dedup, std::int64_t capacity) {
  SCOPED_TRACE("seed " + std::to_string(seed) + (dedup ? ", tokens" : ", rows") + ", capacity " +
               std::to_string(capacity));
  std::mt19937_64 generator(seed + 1000 * static_cast<std::uint64_t>(mesh.rank()));
  constexpr std::int64_t kMost = 9, kSlots = 4;
  const ExchangeShape shape{.group = {0, mesh.world(), mesh.rank()},
                            .experts = kExperts,
                            .k = kSlots,
                            .row_bytes = kWidth * 4,
                            .max_tokens = kMost,
                            .capacity = capacity,
                            .dedup = dedup,
                            .hash = 77};
  const moe::Kernel& kernel = moe::kernel("cpu");
  moe::Exchange exchange(*mesh.impl().communicator, kernel, shape);
  Memory memory(capacity);
  ExchangePlan plan;
  for (int call = 0; call < 3; ++call) {
    const Routing routing = random_routing(generator, random_between(generator, 0, kMost), kSlots);
    const std::vector<std::int32_t> x = rows_of(mesh.rank(), routing.tokens);
    exchange.plan(routing, plan);
    for (std::int64_t round = 0; round < plan.rounds; ++round) {
      const ArrivedRows to = memory.arrived();
      const moe::LaunchContext context{.threads = 1, .poll = {}};
      exchange.start_dispatch(plan, round, x.data(), kWidth * 4, &routing, to, context);
      exchange.finish_dispatch(plan, round, &routing, to, context);
      std::vector<float> scalars;
      scalars.reserve(1);  // null would mean that none travel
      for (std::int64_t r = 0; r < plan.rows(round); ++r) {
        const std::int32_t* row = memory.rows.data() + r * kWidth;
        ASSERT_EQ(row[2], row[0] * 1000 + row[1]) << "row " << r;
        const float weight = memory.weights[static_cast<std::size_t>(r)];
        ASSERT_EQ(static_cast<std::int32_t>(weight - 1) / 100, row[1]) << "row " << r;
        scalars.push_back(weight * 2);
      }
      exchange.combine(plan, round, to.rows, scalars.data());
    }
    const auto* back = reinterpret_cast<const std::int32_t*>(exchange.returned());
    for (std::size_t pair = 0; pair < routing.indices.size(); ++pair) {
      const std::int64_t place = plan.sent_at[pair];
      ASSERT_EQ(place < 0, routing.indices[pair] < 0);
      if (place < 0) continue;
      const auto token = static_cast<std::int64_t>(pair) / kSlots;
      ASSERT_EQ(std::memcmp(back + place * kWidth, x.data() + token * kWidth, kWidth * 4), 0);
      ASSERT_EQ(exchange.returned_scalars()[place], routing.weights[pair] * 2)
          << "call " << call << ", token " << token << ", place " << place << " of " << plan.pairs
          << ", " << plan.rounds << " rounds, expert " << routing.indices[pair];
    }
  }
}

TEST(MoeExchange, DispatchThenCombineIsTheIdentity) {
  each_world(
      [](Mesh& mesh) {
        if (kExperts % mesh.world() != 0) return;
        for (const bool dedup : {false, true}) {
          expect_identity(mesh, 21, dedup, 9 * 4 * mesh.world());
          expect_identity(mesh, 22, dedup, 7);
          expect_identity(mesh, 23, dedup, 1);
        }
      },
      kQuick);
}

TEST(MoeExchange, TokensTravelOnceARank) {
  each_world(
      [](Mesh& mesh) {
        if (kExperts % mesh.world() != 0) return;
        const std::int64_t local = kExperts / mesh.world();
        // One token, three experts of the next rank.
        const int next = (mesh.rank() + 1) % mesh.world();
        Routing routing{.tokens = 1, .k = 3, .experts = kExperts, .indices = {}, .weights = {}};
        for (std::int64_t s = 0; s < 3; ++s) {
          routing.indices.push_back(static_cast<std::int32_t>(next * local + s));
          routing.weights.push_back(1.0F);
        }
        const std::vector<std::int32_t> x = rows_of(mesh.rank(), 1);
        std::vector<std::int64_t> sent;
        for (const bool dedup : {false, true}) {
          const ExchangeShape shape{.group = {0, mesh.world(), mesh.rank()},
                                    .experts = kExperts,
                                    .k = 3,
                                    .row_bytes = kWidth * 4,
                                    .max_tokens = 1,
                                    .capacity = 3 * mesh.world(),
                                    .dedup = dedup,
                                    .hash = 5};
          moe::Exchange exchange(*mesh.impl().communicator, moe::kernel("cpu"), shape);
          ExchangePlan plan;
          exchange.plan(routing, plan);
          Memory memory(shape.capacity);
          const auto& transport = mesh.impl().communicator->transport();
          const std::int64_t before = transport.bytes_sent();
          exchange.start_dispatch(plan, 0, x.data(), kWidth * 4, &routing, memory.arrived(), {});
          exchange.finish_dispatch(plan, 0, &routing, memory.arrived(), {});
          sent.push_back(transport.bytes_sent() - before);
        }
        EXPECT_EQ(sent[0] - sent[1], 2 * kWidth * 4);
      },
      kQuick, 2);
}

}  // namespace
}  // namespace annulus::testing
