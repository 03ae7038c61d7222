#include "launch/attend/move.h"

#include <gtest/gtest.h>

#include <annulus/problem.h>

#include <cstring>
#include <thread>
#include <vector>

namespace annulus::launch::test {
namespace {

struct MoveCase {
  Layout layout;
  std::int64_t outer, seq, run;
  int world;
};

std::byte value(std::int64_t i) { return static_cast<std::byte>(i * 131 % 251); }

/// Scatters a tensor, checks each shard, gathers it again; returns the most bytes rank 0 held.
std::size_t move_there_and_back(const MoveCase& c) {
  const Problem problem{.seq = c.seq};
  const Sharding sharding = solve_layout(c.layout, problem, c.world);
  std::vector<Shard> shards;
  for (int r = 0; r < c.world; ++r) shards.push_back(sharding.shard(r));
  const Strips strips{c.outer, c.seq, c.run};
  std::vector<std::byte> back(static_cast<std::size_t>(c.outer * c.seq * c.run));
  std::size_t most = 0;
  std::int64_t next = 0;  // files are read in order
  std::vector<Mesh> meshes = Mesh::threads({.ring = c.world});
  const auto rank = [&](Mesh& mesh) {
    const std::vector<std::int64_t> positions = sharding.positions(mesh.rank());
    const auto tokens = static_cast<std::int64_t>(positions.size());
    std::vector<std::byte> local(static_cast<std::size_t>(c.outer * tokens * c.run));
    const ReadFull read = [&](std::int64_t begin, std::span<std::byte> into) {
      EXPECT_EQ(mesh.rank(), 0);
      EXPECT_EQ(begin, next);
      next += std::ssize(into);
      most = std::max(most, into.size());
      for (std::size_t i = 0; i < into.size(); ++i)
        into[i] = value(begin + static_cast<std::int64_t>(i));
    };
    scatter(mesh, strips, shards, read, local, "scatter");
    for (std::int64_t o = 0; o < c.outer; ++o) {
      for (std::int64_t t = 0; t < tokens; ++t) {
        const std::int64_t full = (o * c.seq + positions[static_cast<std::size_t>(t)]) * c.run;
        EXPECT_EQ(local[static_cast<std::size_t>((o * tokens + t) * c.run)], value(full));
      }
    }
    const WriteFull write = [&](std::int64_t begin, std::span<const std::byte> data) {
      std::memcpy(back.data() + begin, data.data(), data.size());
    };
    gather(mesh, strips, shards, write, local, "gather");
  };
  {
    std::vector<std::jthread> threads;
    for (Mesh& mesh : meshes) threads.emplace_back([&rank, &mesh] { rank(mesh); });
  }
  for (std::size_t i = 0; i < back.size(); ++i) {
    if (back[i] != value(static_cast<std::int64_t>(i))) ADD_FAILURE() << "byte " << i;
  }
  return most;
}

TEST(Move, ShardsArriveAndComeBackForEveryLayout) {
  for (const int world : {1, 2, 3, 5}) {
    for (const Layout& layout :
         {Layout::contiguous(), Layout::zigzag(), Layout::striped(), Layout::balanced()}) {
      move_there_and_back({layout, 3, 61, 12, world});
      move_there_and_back({layout, 2, 2, 4, world});  // ranks without a token
    }
  }
}

TEST(Move, RankZeroHoldsAWindowNotTheTensor) {
  const std::size_t most = move_there_and_back({Layout::zigzag(), 2, 5000, 4096, 3});
  EXPECT_LE(most, std::size_t{8} << 20);
  EXPECT_GT(most, std::size_t{4} << 20);
}

}  // namespace
}  // namespace annulus::launch::test
