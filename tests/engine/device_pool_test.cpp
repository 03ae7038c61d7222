// What bind takes on a GPU, without one: nothing waits, memory comes back in order, and what is
// uploaded is what the host listed.

#include "attention/execute/cuda/device_launches.h"
#include "runtime/base/device_pool.h"
#include "runtime/base/word_pool.h"
#include "runtime/engine/request.h"
#include "tests/engine/pool_runtime.h"

#include <annulus/error.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace annulus::testing {
namespace {

/// On the fake stream.
void upload(std::byte* to, std::byte* from, std::int64_t bytes, cudaStream_t) {
  pool_runtime().enqueued.push_back(
      [=] { std::memcpy(to, from, static_cast<std::size_t>(bytes)); });
}

class PoolTest : public ::testing::Test {
 protected:
  PoolTest() {
    pool_runtime() = {};
    pool_.emplace(nullptr, 0.2, &upload);
    (void)words_.take(1);  // as a session does: its first chunk waits
    pool_runtime().waits = 0;
  }
  ~PoolTest() override {
    pool_runtime().play();
    pool_.reset();
    EXPECT_EQ(pool_runtime().taken.size(), 0U);
    EXPECT_EQ(pool_runtime().waits, 0);
    pool_runtime().play();
  }

  PoolBuffer uploaded(std::int64_t bytes, char value) {
    PoolBuffer buffer = pool_->take(bytes);
    std::ranges::fill(pool_->stage(bytes), static_cast<std::byte>(value));
    pool_->send(buffer.data());
    return buffer;
  }

  WordPool words_;
  std::optional<DevicePool> pool_;
};

/// Does it lie in what a pool has given out?
bool is_taken(const void* address) {
  const auto* at = static_cast<const std::byte*>(address);
  return std::ranges::any_of(pool_runtime().taken, [at](const auto& range) {
    return at >= range.first && at < range.first + range.second;
  });
}

TEST_F(PoolTest, WordsThatWereGivenBackAreTakenAgain) {
  constexpr std::int64_t kThird = WordPool::kChunk / 3 / WordPool::kStep * WordPool::kStep;
  PoolWords first = words_.take(kThird - 5);
  PoolWords second = words_.take(kThird);
  const PoolWords third = words_.take(kThird);
  EXPECT_EQ(first.bytes(), kThird * 4);
  EXPECT_EQ(second.data(), first.data() + kThird);
  EXPECT_EQ(third.data(), second.data() + kThird);
  const std::uint32_t* const begin = first.data();
  first = {};
  second = {};
  const PoolWords both = words_.take(2 * kThird);
  EXPECT_EQ(both.data(), begin);
  EXPECT_EQ(pool_runtime().waits, 0);
  const PoolWords more = words_.take(kThird);  // there is no room
  EXPECT_EQ(pool_runtime().waits, 1);
  pool_runtime().waits = 0;
}

TEST_F(PoolTest, UploadsWhatWasStagedHoweverManyAreUnderWay) {
  constexpr int kMany = 9;
  std::vector<PoolBuffer> buffers;
  for (char i = 0; i < kMany; ++i) buffers.push_back(uploaded(1000 + i, i));
  EXPECT_EQ(pool_runtime().pinned, kMany);
  pool_runtime().play();
  for (char i = 0; i < kMany; ++i) {
    const std::byte* data = buffers[static_cast<std::size_t>(i)].data();
    EXPECT_EQ(std::count(data, data + 1000 + i, static_cast<std::byte>(i)), 1000 + i);
  }
  // All blocks are free again.
  for (char i = 0; i < kMany; ++i) (void)uploaded(1000, i);
  EXPECT_EQ(pool_runtime().pinned, kMany);
  (void)uploaded(1000, 0);
  EXPECT_EQ(pool_runtime().pinned, kMany + 1);
}

TEST_F(PoolTest, ReservesTwiceWhatIsTaken) {
  {
    const PoolBuffer one = uploaded(3 << 20, 1), two = uploaded(5 << 20, 2);
    EXPECT_EQ(pool_->taken(), 8 << 20);
    pool_->reserve(1);
  }
  EXPECT_EQ(pool_->taken(), 0);
  EXPECT_GE(pool_runtime().most_taken, std::size_t{16} << 20);
  EXPECT_EQ(pool_runtime().pinned, 4);
  pool_runtime().play();
  for (const std::int64_t mib : {5, 3, 5, 3}) (void)uploaded(mib << 20, 3);
  EXPECT_EQ(pool_runtime().pinned, 4);
}

TEST_F(PoolTest, AwaitsAnUploadWhereTooMuchIsStaged) {
  constexpr std::int64_t kHalf = DevicePool::kMostStaged / 2;
  const PoolBuffer buffer = pool_->take(256);
  const auto stage_most = [&] {
    (void)pool_->stage(kHalf);  // its memory is not touched
    pool_runtime().enqueued.clear();
    pool_->send(buffer.data());
    pool_runtime().enqueued.erase(pool_runtime().enqueued.begin());  // the upload; its event stays
  };
  stage_most();
  auto first = std::exchange(pool_runtime().enqueued, {});
  stage_most();
  EXPECT_EQ(pool_runtime().pinned, 2);
  EXPECT_THROW((void)pool_->stage(kHalf), Timeout);
  for (const auto& over : first) over();
  EXPECT_NO_THROW((void)pool_->stage(kHalf));
  EXPECT_EQ(pool_runtime().pinned, 2);
}

TEST_F(PoolTest, LeavesAStreamAloneThatIsCaptured) {
  PoolBuffer buffer = uploaded(100, 1);
  pool_runtime().capturing = true;
  EXPECT_THROW((void)pool_->take(1), Unsupported);
  buffer = {};
  { const PoolBuffer gone = std::move(buffer); }
  EXPECT_EQ(pool_runtime().taken.size(), 1U);
  pool_runtime().capturing = false;
  (void)pool_->take(1);
  EXPECT_EQ(pool_runtime().taken.size(), 0U);
}

template <typename T>
void expect_same(std::span<const T> device, std::span<const T> host, const std::string& what) {
  ASSERT_EQ(device.size(), host.size()) << what;
  if (host.empty()) return;
  EXPECT_NE(device.data(), host.data()) << what;
  EXPECT_EQ(std::memcmp(device.data(), host.data(), host.size_bytes()), 0) << what;
}

void expect_same(const attn::AttendGeometry& device, const attn::AttendGeometry& host, Pass pass,
                 const std::string& what) {
  expect_same(device.queries, host.queries, what + " queries");
  expect_same(device.tiles, host.tiles, what + " tiles");
  expect_same(device.row_tiles, host.row_tiles, what + " row tiles");
  expect_same(device.intervals, host.intervals, what + " intervals");
  ASSERT_EQ(device.keys.size(), host.keys.size()) << what;
  for (std::size_t s = 0; s < host.keys.size(); ++s) {
    EXPECT_EQ(device.keys[s].token, host.keys[s].token) << what;
    EXPECT_EQ(device.keys[s].position, host.keys[s].position) << what;
    EXPECT_EQ(device.keys[s].stride, host.keys[s].stride) << what;
    EXPECT_EQ(device.keys[s].count, host.keys[s].count) << what;
  }
  if (pass == Pass::forward) {
    EXPECT_TRUE(device.tiles_by_key.empty() && device.places.empty()) << what;
    return;
  }
  expect_same(device.tiles_by_key, host.tiles_by_key, what + " tiles by key");
  expect_same(device.key_tiles, host.key_tiles, what + " key tiles");
  expect_same(device.places, host.places, what + " places");
}

/// Of three ranks, 650 tokens.
Plan plan_of(const attn::Kernel& kernel, Algorithm algorithm, Pass pass, const Mask& mask) {
  const Problem p = resolved(
      {.seq = 650, .heads = 8, .heads_kv = 4, .head_dim = 128, .dtype = DType::bf16, .mask = mask});
  engine::TileChoice choice;
  choice.gather = GatherLaunch::on_arrival;
  return make_plan(engine::plan_request(p, Layout::zigzag(), {algorithm, {.ring = 3}, ""}, pass,
                                        kernel, choice));
}

TEST_F(PoolTest, ListsAreRefusedWhileAGraphCapturesTheStream) {
  const attn::Kernel& kernel = *attn::kernels("cuda").front();
  const Plan plan = plan_of(kernel, Algorithm::gather, Pass::forward, Mask::causal());
  const RankPlan rank = plan.rank(0);
  const attn::Launches host(plan, rank, kernel);
  pool_runtime().capturing = true;
  EXPECT_THROW(attn::DeviceLaunches(host, *pool_, words_), Unsupported);
  EXPECT_TRUE(pool_runtime().enqueued.empty());
  pool_runtime().capturing = false;
}

TEST_F(PoolTest, HoldsTheListsOfEveryAttend) {
  int attends = 0;
  for (const attn::Kernel* listed : attn::kernels("cuda")) {
    const std::string name(listed->name);
    if (name != "flash2" && name != "hopper") continue;
    for (const Mask& mask : {Mask::causal(), Mask::documents({300, 77, 123, 150})}) {
      for (const Algorithm algorithm : {Algorithm::ring, Algorithm::gather}) {
        for (const Pass pass : {Pass::forward, Pass::backward}) {
          const attn::Kernel& kernel = *listed;
          const Plan plan = plan_of(kernel, algorithm, pass, mask);
          const RankPlan rank = plan.rank(1);
          const attn::Launches host(plan, rank, kernel);
          const attn::DeviceLaunches device(host, *pool_, words_);
          pool_runtime().play();
          for (std::int32_t i = 0; i < static_cast<std::int32_t>(rank.attends.size()); ++i) {
            expect_same(
                device.geometry(i), host.geometry(i), pass,
                name + " " + std::string(name_of(algorithm)) + " attend " + std::to_string(i));
            ++attends;
          }
          for (int w = 0; w < device.word_count(); ++w) EXPECT_EQ(device.words()[w], 0U);
          // Streams may neither write nor await memory of a pool.
          EXPECT_FALSE(is_taken(device.words())) << name;
        }
      }
    }
  }
  EXPECT_GT(attends, 20);
}

}  // namespace
}  // namespace annulus::testing
