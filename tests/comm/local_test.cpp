#include "tests/comm/transfers.h"
#include "tests/support/run_ranks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>

namespace annulus::testing {
namespace {

using ::testing::HasSubstr;

TEST(LocalTransport, FindsEndsOfDifferentSize) {
  auto meshes = Mesh::threads({.ring = 2});
  Buffer small(10);
  Buffer large(20);
  meshes[0].impl().communicator->transport().start(
      {.sends = true, .peer = 1, .tag = 4, .region = dense(large)});
  try {
    meshes[1].impl().communicator->transport().start(
        {.sends = false, .peer = 0, .tag = 4, .region = dense(small)});
    ADD_FAILURE() << "nothing was thrown";
  } catch (const CommError& error) {
    EXPECT_THAT(error.what(), HasSubstr("transfer 0 -> 1, tag 4"));
    EXPECT_THAT(error.what(), HasSubstr("20 bytes"));
    EXPECT_THAT(error.what(), HasSubstr("expects 10"));
  }
}

TEST(LocalTransport, TouchesNoMemoryAfterCancel) {
  auto meshes = Mesh::threads({.ring = 2});
  auto& sender = meshes[0].impl().communicator->transport();
  auto& receiver = meshes[1].impl().communicator->transport();
  Buffer target(64, std::byte{1});
  {
    Buffer source(64, std::byte{2});
    sender.start({.sends = true, .peer = 1, .tag = 0, .region = dense(source)});
    sender.cancel();
  }
  const auto ticket =
      receiver.start({.sends = false, .peer = 0, .tag = 0, .region = dense(target)});
  EXPECT_FALSE(receiver.done(ticket));
  EXPECT_EQ(target, Buffer(64, std::byte{1}));
}

TEST(LocalTransport, CancelWhileThePeerCopiesIsSafe) {
  for (int trial = 0; trial < 50; ++trial) {
    run_ranks(2, [&](Mesh& mesh) {
      auto& transport = mesh.impl().communicator->transport();
      Buffer memory(1 << 18, std::byte{3});
      const bool sends = mesh.rank() == 0;
      mesh.impl().communicator->barrier("start");
      const auto ticket = transport.start(
          {.sends = sends, .peer = 1 - mesh.rank(), .tag = 0, .region = dense(memory)});
      for (int poll = 0; poll < trial; ++poll) {
        if (transport.done(ticket)) break;
      }
      transport.cancel();
    });
  }
}

}  // namespace
}  // namespace annulus::testing
