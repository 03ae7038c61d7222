#include "runtime/base/clock.h"
#include "tests/comm/transfers.h"
#include "tests/support/each_world.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

namespace annulus::testing {
namespace {

using ::testing::HasSubstr;
using namespace std::chrono_literals;

const MeshOptions kQuick{.timeout_s = 0.4};

TEST(Fault, TimeoutNamesTheRankThatIsMissing) {
  each_world(
      [](Mesh& mesh) {
        if (mesh.rank() == 1) return std::this_thread::sleep_for(800ms);
        const Deadline clock(100.0);
        try {
          mesh.impl().communicator->barrier("the test");
          ADD_FAILURE() << "no Timeout";
        } catch (const Timeout& error) {
          EXPECT_THAT(error.what(), HasSubstr("rank " + std::to_string(mesh.rank()) + " of"));
          EXPECT_THAT(error.what(), HasSubstr("'the test'; rank 1 did not arrive"));
        }
        EXPECT_GE(clock.elapsed_s(), 0.38);
        EXPECT_LE(clock.elapsed_s(), 0.4 + 2.0);
      },
      kQuick, 2);
}

TEST(Fault, ReportEndsWaitsForTransfersAndCollectives) {
  each_world(
      [](Mesh& mesh) {
        auto& communicator = *mesh.impl().communicator;
        const int last = mesh.world() - 1;
        const Deadline clock(100.0);
        std::string reason = "device 3 is on fire";
        if (mesh.rank() != last) {
          Buffer never(100);
          Transfers transfers(mesh);
          transfers.receive(last, 0, dense(never));
          try {
            if (mesh.rank() % 2 == 0) transfers.wait();
            communicator.barrier("never");
            ADD_FAILURE() << "no CommError";
          } catch (const CommError& error) {
            reason = error.what();
          }
          communicator.transport().cancel();
        } else {
          std::this_thread::sleep_for(100ms);
        }
        const auto reports = communicator.report_failure(reason);
        EXPECT_LE(clock.elapsed_s(), 3.0);
        ASSERT_EQ(static_cast<int>(reports.size()), mesh.world());
        for (int rank = 0; rank < mesh.world(); ++rank) {
          const auto& report = reports[static_cast<std::size_t>(rank)];
          ASSERT_TRUE(report) << "rank " << rank << " did not answer";
          EXPECT_THAT(*report, HasSubstr("device 3 is on fire"));
        }
      },
      {}, 2);
}

TEST(Fault, ReportIsKeptForARankThatComesLater) {
  each_world(
      [](Mesh& mesh) {
        auto& communicator = *mesh.impl().communicator;
        if (mesh.rank() == 0) {
          communicator.report_failure("early");
          return;
        }
        std::this_thread::sleep_for(200ms);
        EXPECT_THROW(communicator.barrier("late"), CommError);
        EXPECT_EQ(communicator.report_failure("late").front(), "early");
      },
      {}, 2);
}

TEST(Fault, ReportReturnsWhenARankIsSilent) {
  each_world(
      [](Mesh& mesh) {
        if (mesh.rank() == 1) return std::this_thread::sleep_for(1800ms);
        const Deadline clock(100.0);
        const auto reports = mesh.impl().communicator->report_failure("one is silent");
        EXPECT_LE(clock.elapsed_s(), 2.2);
        EXPECT_FALSE(reports[1].has_value());
        EXPECT_EQ(reports[0], "one is silent");
      },
      {}, 4);
}

TEST(Fault, AbortFromAnotherThreadEndsAWait) {
  each_world([](Mesh& mesh) {
    const std::jthread aborter([&mesh] {
      std::this_thread::sleep_for(100ms);
      mesh.abort();
    });
    const Deadline clock(100.0);
    Buffer never(8);
    Transfers transfers(mesh);
    transfers.receive(mesh.rank(), 1, dense(never));
    EXPECT_THROW(transfers.wait(), CommError);
    EXPECT_THROW(mesh.impl().communicator->barrier("after"), CommError);
    EXPECT_LE(clock.elapsed_s(), 2.0);
    mesh.impl().communicator->transport().cancel();
  });
}

TEST(Fault, AbortEndsACollectiveWait) {
  each_world(
      [](Mesh& mesh) {
        if (mesh.rank() == 1) return std::this_thread::sleep_for(300ms);
        const std::jthread aborter([&mesh] {
          std::this_thread::sleep_for(100ms);
          mesh.abort();
        });
        EXPECT_THROW(mesh.impl().communicator->barrier("never"), CommError);
      },
      {}, 2);
}

}  // namespace
}  // namespace annulus::testing
