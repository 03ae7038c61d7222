#include "tests/comm/transfers.h"
#include "tests/support/each_world.h"

#include <gtest/gtest.h>

#include <sys/resource.h>

#include <chrono>
#include <thread>

namespace annulus::testing {
namespace {

/// Every rank sends one region to every rank, itself included.
void exchange_all(Mesh& mesh, int tag, std::int64_t bytes) {
  const int world = mesh.world();
  std::vector<Buffer> outgoing;
  std::vector<Buffer> incoming(static_cast<std::size_t>(world),
                               Buffer(static_cast<std::size_t>(bytes)));
  for (int peer = 0; peer < world; ++peer) {
    outgoing.push_back(pattern(mesh.rank(), peer, tag, bytes));
  }
  Transfers transfers(mesh);
  for (int peer = 0; peer < world; ++peer) {
    const auto index = static_cast<std::size_t>(peer);
    transfers.send(peer, tag, dense(outgoing[index]));
    transfers.receive(peer, tag, dense(incoming[index]));
  }
  transfers.wait();
  for (int peer = 0; peer < world; ++peer) {
    EXPECT_EQ(incoming[static_cast<std::size_t>(peer)], pattern(peer, mesh.rank(), tag, bytes))
        << "from rank " << peer << ", " << bytes << " bytes";
  }
}

TEST(Transport, MovesDenseRegionsOfAnySize) {
  each_world([](Mesh& mesh) {
    int tag = 0;
    for (const std::int64_t bytes : {0, 1, 7, 4095, 4096, 65537, (1 << 20) + 3}) {
      exchange_all(mesh, tag++, bytes);
    }
  });
}

TEST(Transport, UsesTheSameTagsInEveryCall) {
  each_world([](Mesh& mesh) {
    for (int call = 0; call < 20; ++call) exchange_all(mesh, 3, 1000 + call);
  });
}

/// Kernels poll between tiles: a poll that sleeps holds up what computes.
TEST(Transport, PollsWithoutASleep) {
  each_world(
      [](Mesh& mesh) {
        Buffer memory(1 << 16);
        Transfers transfers(mesh);
        const auto sleeps = [] {
          rusage usage{};
          getrusage(RUSAGE_THREAD, &usage);
          return usage.ru_nvcsw;
        };
        if (mesh.rank() == 0) {
          transfers.receive(1, 5, dense(memory));
          const long before = sleeps();
          const Deadline polling(0.05);
          while (!polling.expired()) mesh.impl().communicator->transport().progress();
          EXPECT_LE(sleeps() - before, 3);  // about fifty where waits of 2 ms make it sleep
        }
        mesh.impl().communicator->barrier("rank 0 has polled");
        if (mesh.rank() == 1) transfers.send(0, 5, dense(memory));
        transfers.wait();
      },
      {}, 2);
}

TEST(Transport, MovesBetweenDifferentShapes) {
  each_world([](Mesh& mesh) {
    const int next = (mesh.rank() + 1) % mesh.world();
    const int previous = (mesh.rank() + mesh.world() - 1) % mesh.world();
    Buffer outgoing = pattern(mesh.rank(), next, 0, 5 * 7 * 33 * 3);
    Buffer incoming(4096, std::byte{0});
    Transfers transfers(mesh);
    // 5 x 7 runs of 13 bytes go to 35 x 1 x 13 runs of 1 byte, all with gaps.
    transfers.send(
        next, 0,
        {.base = outgoing.data(), .count = {5, 7, 1}, .stride = {7 * 33 + 2, 33, 0}, .run = 13});
    transfers.receive(
        previous, 0,
        {.base = incoming.data(), .count = {35, 1, 13}, .stride = {100, 0, 3}, .run = 1});
    transfers.wait();
    const Buffer expected = pattern(previous, mesh.rank(), 0, 5 * 7 * 33 * 3);
    int wrong = 0;
    for (std::size_t run = 0; run < 35; ++run) {
      for (std::size_t i = 0; i < 13; ++i) {
        const std::size_t from = run / 7 * (7 * 33 + 2) + run % 7 * 33 + i;
        wrong += incoming[run * 100 + i * 3] != expected[from] ? 1 : 0;
      }
    }
    EXPECT_EQ(wrong, 0);
  });
}

TEST(Transport, MovesLargeStridedRegions) {
  each_world([](Mesh& mesh) {
    constexpr std::int64_t kRows = 3000;
    constexpr std::int64_t kPitch = 1024;
    const int next = (mesh.rank() + 1) % mesh.world();
    const int previous = (mesh.rank() + mesh.world() - 1) % mesh.world();
    Buffer outgoing = pattern(mesh.rank(), next, 1, kRows * kPitch);
    Buffer incoming(static_cast<std::size_t>(kRows * 256));
    Transfers transfers(mesh);
    transfers.receive(previous, 1, dense(incoming));
    transfers.send(next, 1,
                   {.base = outgoing.data() + 512,
                    .count = {1, 1, kRows},
                    .stride = {0, 0, kPitch},
                    .run = 256});
    transfers.wait();
    const Buffer sent = pattern(previous, mesh.rank(), 1, kRows * kPitch);
    std::int64_t wrong = 0;
    for (std::int64_t row = 0; row < kRows; ++row) {
      const auto from = sent.begin() + row * kPitch + 512;
      wrong += std::equal(from, from + 256, incoming.begin() + row * 256) ? 0 : 1;
    }
    EXPECT_EQ(wrong, 0);
  });
}

TEST(Transport, HoldsManyTransfersInFlight) {
  each_world([](Mesh& mesh) {
    constexpr int kTags = 100;
    std::vector<Buffer> outgoing;
    std::vector<Buffer> incoming(static_cast<std::size_t>(mesh.world() * kTags), Buffer(777));
    for (int i = 0; i < mesh.world() * kTags; ++i) {
      outgoing.push_back(pattern(mesh.rank(), i / kTags, i % kTags, 777));
    }
    Transfers transfers(mesh);
    for (int i = 0; i < mesh.world() * kTags; ++i) {
      // Receives start in another order than the sends: tags tell them apart.
      const int back = mesh.world() * kTags - 1 - i;
      transfers.send(i / kTags, i % kTags, dense(outgoing[static_cast<std::size_t>(i)]));
      transfers.receive(back / kTags, back % kTags,
                        dense(incoming[static_cast<std::size_t>(back)]));
    }
    transfers.wait();
    int wrong = 0;
    for (int i = 0; i < mesh.world() * kTags; ++i) {
      const Buffer expected = pattern(i / kTags, mesh.rank(), i % kTags, 777);
      wrong += incoming[static_cast<std::size_t>(i)] != expected ? 1 : 0;
    }
    EXPECT_EQ(wrong, 0);
  });
}

TEST(Transport, KeepsTheOrderOfTransfersWithOneTag) {
  each_world([](Mesh& mesh) {
    constexpr int kCount = 40;
    const int next = (mesh.rank() + 1) % mesh.world();
    const int previous = (mesh.rank() + mesh.world() - 1) % mesh.world();
    std::vector<Buffer> outgoing;
    std::vector<Buffer> incoming;
    // Small and large messages travel by different protocols, yet in order.
    const auto bytes = [](int i) { return i % 3 == 0 ? 200'000 : 16; };
    for (int i = 0; i < kCount; ++i) {
      outgoing.push_back(pattern(mesh.rank(), next, i, bytes(i)));
      incoming.emplace_back(static_cast<std::size_t>(bytes(i)));
    }
    Transfers transfers(mesh);
    if (mesh.rank() % 2 == 1) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    for (int i = 0; i < kCount; ++i) {
      transfers.send(next, 9, dense(outgoing[static_cast<std::size_t>(i)]));
      transfers.receive(previous, 9, dense(incoming[static_cast<std::size_t>(i)]));
    }
    transfers.wait();
    for (int i = 0; i < kCount; ++i) {
      EXPECT_EQ(incoming[static_cast<std::size_t>(i)], pattern(previous, mesh.rank(), i, bytes(i)));
    }
  });
}

TEST(Transport, CountsTheBytesOfFinishedSends) {
  each_world([](Mesh& mesh) {
    exchange_all(mesh, 0, 1000);
    EXPECT_EQ(mesh.impl().communicator->transport().bytes_sent(), 1000 * mesh.world());
  });
}

TEST(Transport, RefusesPeersAndTicketsThatDoNotExist) {
  each_world([](Mesh& mesh) {
    auto& transport = mesh.impl().communicator->transport();
    EXPECT_THROW(transport.start({.sends = true, .peer = mesh.world(), .region = {}}),
                 InvalidArgument);
    EXPECT_THROW(transport.start({.sends = false, .peer = -1, .region = {}}), InvalidArgument);
    EXPECT_THROW(transport.done(5), InvalidArgument);
  });
}

TEST(Transport, IsUnusableAfterCancel) {
  each_world([](Mesh& mesh) {
    auto& transport = mesh.impl().communicator->transport();
    Buffer never(100);
    transport.start({.sends = false, .peer = mesh.rank(), .tag = 1, .region = dense(never)});
    transport.cancel();
    EXPECT_THROW(transport.start({.sends = true, .peer = mesh.rank(), .region = {}}), CommError);
  });
}

}  // namespace
}  // namespace annulus::testing
