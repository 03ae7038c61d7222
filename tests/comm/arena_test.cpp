// Transfers between arenas, which ranks of one host may reach directly, and memory that is in none.
#include "comm/arena.h"
#include "runtime/base/clock.h"
#include "tests/comm/transfers.h"
#include "tests/support/each_world.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstring>
#include <memory>

namespace annulus::testing {
namespace {

using ::testing::HasSubstr;

constexpr std::int64_t kHalf = std::int64_t{3} << 20;  // more than one piece of a copy

/// A rank's memory: one half to send from, one to receive into, in an arena or in none.
struct Memory {
  Memory(Mesh& mesh, bool source_in_arena, bool target_in_arena)
      : arena(mesh.impl().communicator->make_arena(2 * kHalf)), outside(2 * kHalf) {
    std::memset(arena->bytes().data(), 0xee, arena->bytes().size());
    source = source_in_arena ? arena->bytes().data() : outside.data();
    target = (target_in_arena ? arena->bytes().data() : outside.data()) + kHalf;
  }

  std::unique_ptr<comm::Arena> arena;
  Buffer outside;
  std::byte* source;
  std::byte* target;
};

/// Sends to the next rank and receives from the previous one, both as boxes of runs of `run` bytes
/// at a pitch of two; says how many bytes are wrong, between the runs too.
std::int64_t wrong_bytes(Mesh& mesh, Memory& memory, std::int64_t run, std::int64_t runs, int tag) {
  const int next = (mesh.rank() + 1) % mesh.world();
  const int previous = (mesh.rank() + mesh.world() - 1) % mesh.world();
  const Buffer sent = pattern(mesh.rank(), next, tag, 2 * run * runs);
  std::ranges::copy(sent, memory.source);
  std::memset(memory.target, 0x77, static_cast<std::size_t>(2 * run * runs));
  const auto box = [&](std::byte* base) {
    return comm::Region{.base = base, .count = {1, 1, runs}, .stride = {0, 0, 2 * run}, .run = run};
  };
  Transfers transfers(mesh);
  transfers.receive(previous, tag, box(memory.target));
  transfers.send(next, tag, box(memory.source));
  transfers.wait();
  const Buffer expected = pattern(previous, mesh.rank(), tag, 2 * run * runs);
  std::int64_t wrong = 0;
  for (std::int64_t i = 0; i < 2 * run * runs; ++i) {
    const std::byte want =
        i / run % 2 == 0 ? expected[static_cast<std::size_t>(i)] : std::byte{0x77};
    wrong += memory.target[i] != want ? 1 : 0;
  }
  return wrong;
}

void moves_everywhere(Mesh& mesh) {
  int tag = 0;
  for (const bool source : {true, false}) {
    for (const bool target : {true, false}) {
      Memory memory(mesh, source, target);
      for (const std::int64_t run : {1, 13, 512, 4096}) {
        for (const std::int64_t runs : {1, 7, 300}) {
          EXPECT_EQ(wrong_bytes(mesh, memory, run, runs, tag++), 0)
              << "source in arena " << source << ", target " << target << ", run " << run;
        }
      }
      EXPECT_EQ(wrong_bytes(mesh, memory, kHalf / 2, 1, tag++), 0);
      EXPECT_EQ(wrong_bytes(mesh, memory, 0, 5, tag++), 0);
      mesh.impl().communicator->barrier("before the arena goes");
    }
  }
}

TEST(Arena, MovesFromAndToArenasAndOtherMemory) { each_world(moves_everywhere); }

TEST(Arena, MovesAllByMessagesWhereThatIsAskedFor) {
  each_world(moves_everywhere, {.shared_memory = false});
}

TEST(Arena, RanksMayMixWhatTheyBring) {
  each_world([](Mesh& mesh) {
    // Odd ranks have no arena at all: a caller's own memory stands in its place.
    const bool none = mesh.rank() % 2 == 1;
    const auto arena = mesh.impl().communicator->make_arena(none ? 0 : 2 * kHalf);
    Memory memory(mesh, !none, mesh.rank() % 3 == 0);
    for (int call = 0; call < 5; ++call) EXPECT_EQ(wrong_bytes(mesh, memory, 100, 50, 1), 0);
    mesh.impl().communicator->barrier("before the arena goes");
  });
}

TEST(Arena, HoldsMoreTransfersThanAMailbox) {
  each_world([](Mesh& mesh) {
    constexpr int kCount = 500;
    Memory memory(mesh, true, true);
    const int next = (mesh.rank() + 1) % mesh.world();
    const int previous = (mesh.rank() + mesh.world() - 1) % mesh.world();
    const Buffer sent = pattern(mesh.rank(), next, 0, kCount * 100);
    std::ranges::copy(sent, memory.source);
    Transfers transfers(mesh);
    const auto part = [](std::byte* base, int i) {
      return comm::Region{.base = base + i * 100, .run = 100};
    };
    // Two tags in turn, receives of one of them first: order holds within a tag.
    for (int i = 0; i < kCount; ++i) transfers.send(next, i % 2, part(memory.source, i));
    for (int i = 1; i < kCount; i += 2) transfers.receive(previous, 1, part(memory.target, i));
    for (int i = 0; i < kCount; i += 2) transfers.receive(previous, 0, part(memory.target, i));
    transfers.wait();
    const Buffer expected = pattern(previous, mesh.rank(), 0, kCount * 100);
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), memory.target));
    mesh.impl().communicator->barrier("before the arena goes");
  });
}

TEST(Arena, DifferentSizesOfTheTwoEndsAreAnError) {
  each_world(
      [](Mesh& mesh) {
        if (mesh.transport() != "local" && !mesh.impl().options.shared_memory) return;
        Memory memory(mesh, true, true);
        auto& communicator = *mesh.impl().communicator;
        Transfers transfers(mesh);
        std::string reason;
        try {
          if (mesh.rank() == 0) transfers.send(1, 0, {.base = memory.source, .run = 100});
          if (mesh.rank() == 1) transfers.receive(0, 0, {.base = memory.target, .run = 99});
          transfers.wait();
          communicator.barrier("the error of rank 1");
          ADD_FAILURE() << "no CommError";
        } catch (const CommError& error) {
          reason = error.what();
        }
        EXPECT_THAT(reason, HasSubstr("the sender has 100 bytes, the receiver expects 99"));
        communicator.transport().cancel();
        communicator.report_failure(reason);
      },
      {}, 2);
}

std::int64_t peak_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss * 1024;
}

TEST(Arena, ReadingAnothersMemoryIsNotCountedAsOnesOwn) {
  each_world(
      [](Mesh& mesh) {
        if (mesh.transport() == "local") return;  // one process: all of it is its own
        constexpr std::int64_t kBytes = std::int64_t{64} << 20;
        const auto arena = mesh.impl().communicator->make_arena(kBytes);
        std::byte* const data = arena->bytes().data();
        std::memset(data, mesh.rank() + 1, static_cast<std::size_t>(kBytes));
        mesh.impl().communicator->barrier("filled");
        const std::int64_t before = peak_bytes();
        Transfers transfers(mesh);
        const int next = (mesh.rank() + 1) % mesh.world();
        const int previous = (mesh.rank() + mesh.world() - 1) % mesh.world();
        transfers.send(next, 0, {.base = data, .run = kBytes / 2});
        transfers.receive(previous, 0, {.base = data + kBytes / 2, .run = kBytes / 2});
        transfers.wait();
        EXPECT_EQ(data[kBytes - 1], static_cast<std::byte>(previous + 1));
        EXPECT_LE(peak_bytes() - before, 4 << 20);
        mesh.impl().communicator->barrier("before the arena goes");
      },
      {}, 2);
}

}  // namespace
}  // namespace annulus::testing
