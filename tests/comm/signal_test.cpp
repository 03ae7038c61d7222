// What signals between GPUs hold, when a stream's wait for one is over, and what a watch sees of
// it.

#include "comm/peer/control_block.h"
#include "comm/peer/notes.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

namespace annulus::comm::peer {
namespace {

/// CU_STREAM_WAIT_VALUE_GEQ, as its documentation has it.
bool ends_wait(std::uint32_t word, std::uint32_t wanted) {
  return static_cast<std::int32_t>(word - wanted) >= 0;
}

constexpr std::uint32_t kRaised = 0x01010101U * kRaisedByte;

TEST(Signal, IsNeverZeroAndIsEndedByItsPlanAndByAWatch) {
  std::mt19937 engine(3);
  for (std::uint32_t hash : {0U, 1U, 0x40000000U, 0x7fffffffU, 0xffffffffU}) {
    for (int i = 0; i < 1000; ++i, hash = static_cast<std::uint32_t>(engine())) {
      const std::uint32_t value = signal_value(hash);
      ASSERT_NE(value, 0U);
      ASSERT_TRUE(ends_wait(value, value));
      ASSERT_FALSE(ends_wait(0, value));
      ASSERT_TRUE(ends_wait(kRaised, value));
    }
  }
}

TEST(Signal, OfTwoPlansHoldsUpOneOfTheRanks) {
  std::mt19937 engine(4);
  for (int i = 0; i < 10000; ++i) {
    const std::uint32_t a = signal_value(static_cast<std::uint32_t>(engine()));
    const std::uint32_t b = signal_value(static_cast<std::uint32_t>(engine()));
    if (a == b) continue;
    ASSERT_NE(ends_wait(a, b), ends_wait(b, a)) << a << " " << b;
  }
}

/// What a watch raises is every signal and nothing else.
TEST(Signal, OfARankLieInOnePieceAndThoseOfAllRanksUpToTheAbortWord) {
  constexpr int kWorld = 3;
  std::vector<std::byte> memory(static_cast<std::size_t>(ControlBlock::bytes(kWorld)));
  const ControlBlock block(memory.data(), kWorld);
  std::vector<const std::uint32_t*> raised;
  for (int r = 0; r < kWorld; ++r) {
    for (int i = 0; i < ControlBlock::kSignalsOfRank; ++i)
      raised.push_back(block.signals_of(r) + i);
  }
  std::vector<const std::uint32_t*> signals;
  for (int r = 0; r < kWorld; ++r) {
    for (std::int32_t tag = 0; tag < ControlBlock::kTags; ++tag)
      signals.push_back(block.ready(r, tag));
    for (std::int32_t tag = 0; tag < ControlBlock::kTags; ++tag)
      signals.push_back(block.free(r, tag));
  }
  EXPECT_EQ(raised, signals);
  EXPECT_EQ(raised.back() + 1, block.abort());
}

TEST(Notes, LieInWhatALookCopiesAndBesideEverythingElse) {
  for (const int world : {1, 2, 8}) {
    std::vector<std::byte> memory(static_cast<std::size_t>(ControlBlock::bytes(world)));
    const ControlBlock block(memory.data(), world);
    const auto at = [&](const void* word) {
      return static_cast<const std::byte*>(word) - memory.data();
    };
    const std::ptrdiff_t signals_end = at(block.signals_of(world));
    const std::ptrdiff_t told_end = at(block.abort()) + 4 * ControlBlock::kToldWords;
    EXPECT_EQ(at(block.abort()), signals_end);
    for (int lane = 0; lane < ControlBlock::kLanes; ++lane) {
      EXPECT_EQ(block.awaited(lane), block.abort() + ControlBlock::kFirstNote + lane);
      EXPECT_GE(at(block.awaited(lane)), signals_end + 32);
      EXPECT_LT(at(block.awaited(lane)), told_end);
    }
    EXPECT_LE(told_end, at(block.counter(0)));
    EXPECT_LE(at(block.counter(ControlBlock::kCounters)), ControlBlock::bytes(world));
    EXPECT_LT(at(block.ready(world - 1, ControlBlock::kTags - 1)), signals_end);
    EXPECT_LT(at(block.free(world - 1, ControlBlock::kTags - 1)), signals_end);
  }
}

/// Streams that call pass 10 + n in call n and wait for transfer n there. The next call begins
/// before or after each of the first `moves` copies.
struct Streams {
  int moves = 0;
  bool before = false;
  std::uint32_t abort = 0;
  std::uint32_t on_host = 0;  ///< what the second lane waits for, where hosts are told
  std::uint32_t call = 5;
  int copies = 0;

  Notes host() const { return {call, 10 + call, {0, on_host}}; }
  ToldWords device() {
    const bool moves_on = copies++ < moves;
    if (moves_on && before) ++call;
    ToldWords told{};
    told[0] = abort;
    told[ControlBlock::kFirstNote + 1] = 1 + call;
    if (moves_on && !before) ++call;
    return told;
  }
  Seen seen(bool notes_on_host = false) {
    return look_at([&] { return host(); }, [&] { return device(); }, notes_on_host);
  }
};

TEST(Notes, AreOfTheCallThatTheyAreSeenWith) {
  for (const bool before : {false, true}) {
    for (const int moves : {0, 1, 2, 3}) {
      Streams streams{.moves = moves, .before = before};
      const Seen seen = streams.seen();
      EXPECT_EQ(streams.copies, moves + 1);
      EXPECT_EQ(seen.notes.calls, 5U + static_cast<std::uint32_t>(moves));
      EXPECT_EQ(seen.notes.pass, 10 + seen.notes.calls);
      EXPECT_EQ(seen.notes.awaited[0], 0U);
      EXPECT_EQ(seen.notes.awaited[1], 1 + seen.notes.calls);
      EXPECT_TRUE(seen.notes.waits());
      EXPECT_FALSE(seen.told);
    }
  }
}

TEST(Notes, OfStreamsThatGoOnAreLeftForTheNextLook) {
  Streams streams{.moves = 1000};
  const Notes first = streams.seen().notes;
  EXPECT_LE(streams.copies, 8);
  EXPECT_FALSE(first == streams.seen().notes);
}

TEST(Notes, TellOfAnAbort) {
  Streams streams{.abort = 3};
  EXPECT_TRUE(streams.seen().told);
}

/// Nothing is copied from a device whose streams wait for nothing.
TEST(Notes, AreTheHostsWhereTheyStandThere) {
  Streams idle{.abort = 3};
  EXPECT_FALSE(idle.seen(true).notes.waits());
  EXPECT_EQ(idle.copies, 0);
  Streams waiting{.abort = 3, .on_host = 9};
  const Seen seen = waiting.seen(true);
  EXPECT_TRUE(seen.told);
  EXPECT_EQ(seen.notes.awaited[1], 9U);
  EXPECT_EQ(waiting.copies, 1);
}

}  // namespace
}  // namespace annulus::comm::peer
