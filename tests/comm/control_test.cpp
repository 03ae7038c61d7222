#include "tests/support/each_world.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

namespace annulus::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::vector<int> gather_int(Mesh& mesh, int value) {
  std::vector<int> all(static_cast<std::size_t>(mesh.world()));
  mesh.impl().communicator->all_gather(std::as_bytes(std::span(&value, 1)),
                                       std::as_writable_bytes(std::span(all)), "test");
  return all;
}

template <class Exception>
std::string text_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Exception& error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST(Communicator, GathersPartsInRankOrder) {
  each_world([](Mesh& mesh) {
    for (int call = 0; call < 50; ++call) {
      const auto all = gather_int(mesh, mesh.rank() * 1000 + call);
      for (int rank = 0; rank < mesh.world(); ++rank) {
        EXPECT_EQ(all[static_cast<std::size_t>(rank)], rank * 1000 + call);
      }
    }
  });
}

TEST(Communicator, GathersLargeParts) {
  each_world([](Mesh& mesh) {
    const std::vector<int> mine(100'000, mesh.rank() + 1);
    std::vector<int> all(mine.size() * static_cast<std::size_t>(mesh.world()));
    mesh.impl().communicator->all_gather(std::as_bytes(std::span(mine)),
                                         std::as_writable_bytes(std::span(all)), "test");
    for (std::size_t i = 0; i < all.size(); ++i) {
      ASSERT_EQ(all[i], static_cast<int>(i / mine.size()) + 1);
    }
  });
}

TEST(Communicator, HoldsEarlyRanksInABarrier) {
  each_world([](Mesh& mesh) {
    const auto last = mesh.rank() == mesh.world() - 1;
    const auto start = std::chrono::steady_clock::now();
    mesh.impl().communicator->barrier("begin");
    if (last) std::this_thread::sleep_for(std::chrono::milliseconds(60));
    mesh.impl().communicator->barrier("end");
    EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(50));
  });
}

TEST(Communicator, RefusesAWrongOutputSize) {
  each_world([](Mesh& mesh) {
    std::vector<std::byte> all(3);
    EXPECT_THROW(mesh.impl().communicator->all_gather(std::as_bytes(std::span("ab", 2)), all, "x"),
                 InvalidArgument);
  });
}

TEST(Communicator, FindsPartsOfDifferentSize) {
  each_world(
      [](Mesh& mesh) {
        const std::vector<std::byte> mine(mesh.rank() == 0 ? 5000 : 8);
        std::vector<std::byte> all(mine.size() * static_cast<std::size_t>(mesh.world()));
        auto& communicator = *mesh.impl().communicator;
        const std::string text =
            text_of<CommError>([&] { communicator.all_gather(mine, all, "sizes"); });
        EXPECT_THAT(text, HasSubstr("5000"));
      },
      {}, 2);
}

TEST(Agreement, PassesWhereAllSayTheSame) {
  each_world([](Mesh& mesh) {
    auto& communicator = *mesh.impl().communicator;
    EXPECT_NO_THROW(comm::require_agreement(communicator, "plan", "same"));
    EXPECT_NO_THROW(comm::require_agreement(communicator, "nothing", ""));
    EXPECT_NO_THROW(comm::require_success(communicator, "arguments", ""));
  });
}

TEST(Agreement, ShowsEveryValueOnEveryRank) {
  each_world(
      [](Mesh& mesh) {
        const std::string value = mesh.rank() == 1 ? "causal" : "full";
        const std::string text = text_of<CommError>(
            [&] { comm::require_agreement(*mesh.impl().communicator, "mask", value); });
        EXPECT_THAT(text, HasSubstr("ranks disagree on mask"));
        EXPECT_THAT(text, HasSubstr("rank 1: 'causal'"));
        EXPECT_THAT(text, HasSubstr(mesh.world() == 2 ? "rank 0: 'full'" : "ranks 0, 2"));
        // The mesh still works, since all ranks threw alike.
        EXPECT_NO_THROW(comm::require_agreement(*mesh.impl().communicator, "text", text));
      },
      {}, 2);
}

TEST(Agreement, ShortensLongValuesAroundTheDifference) {
  each_world(
      [](Mesh& mesh) {
        std::string value(50'000, 'x');
        value[30'000] = mesh.rank() == 0 ? 'A' : 'B';
        const std::string text = text_of<CommError>(
            [&] { comm::require_agreement(*mesh.impl().communicator, "plan", value); });
        EXPECT_LT(text.size(), 1000U);
        EXPECT_THAT(text, HasSubstr("xAx"));
        EXPECT_THAT(text, HasSubstr("xBx"));
        EXPECT_THAT(text, HasSubstr("50000 characters"));
      },
      {}, 2);
}

TEST(Agreement, TellsApartValuesOfDifferentLength) {
  each_world(
      [](Mesh& mesh) {
        const std::string value = mesh.rank() == 0 ? "" : "something";
        const std::string text = text_of<CommError>(
            [&] { comm::require_agreement(*mesh.impl().communicator, "value", value); });
        EXPECT_THAT(text, HasSubstr("rank 0: ''"));
        EXPECT_THAT(text, HasSubstr("'something'"));
      },
      {}, 2);
}

TEST(Agreement, GivesOneRanksErrorToAll) {
  each_world([](Mesh& mesh) {
    const std::string error = mesh.rank() == mesh.world() - 1 ? "q has 3 heads" : "";
    const std::string text = text_of<InvalidArgument>(
        [&] { comm::require_success(*mesh.impl().communicator, "arguments", error); });
    EXPECT_THAT(text, HasSubstr("rank " + std::to_string(mesh.world() - 1) + ": q has 3 heads"));
  });
}

}  // namespace
}  // namespace annulus::testing
