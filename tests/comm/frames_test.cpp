// The control plane of a mesh from an ncclComm_t, over frames of threads in NCCL's place.
#include "comm/frames/frame_communicator.h"
#include "comm/local/board.h"

#include <annulus/error.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>
#include <vector>

namespace annulus::comm::frames {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

/// Counts how often it was given up.
class BoardFrames final : public Frames {
 public:
  BoardFrames(std::shared_ptr<local::Board> board, int rank, std::atomic<int>& abandoned)
      : board_(std::move(board)), rank_(rank), abandoned_(abandoned) {}
  int rank() const override { return rank_; }
  int size() const override { return board_->size(); }
  void gather(std::span<const std::byte> mine, std::span<std::byte> all, std::string_view what,
              const Deadline& deadline, const std::function<void()>& check) override {
    EXPECT_EQ(mine.size(), kFrameBytes);
    EXPECT_FALSE(given_up_);
    board_->gather(round_++, rank_, mine, all, what, deadline, check);
  }
  void abandon() noexcept override {
    if (!given_up_) ++abandoned_;
    given_up_ = true;
  }

 private:
  std::shared_ptr<local::Board> board_;
  const int rank_;
  std::atomic<int>& abandoned_;
  std::uint64_t round_ = 0;
  bool given_up_ = false;
};

/// Runs `body` on a thread for each rank; returns how many ranks gave their frames up.
int on_frames(int size, double timeout_s, const std::function<void(Communicator&)>& body) {
  const auto board = std::make_shared<local::Board>(size);
  std::atomic<int> abandoned = 0;
  std::vector<std::thread> threads;
  for (int r = 0; r < size; ++r) {
    threads.emplace_back([&, r] {
      FrameCommunicator communicator(std::make_unique<BoardFrames>(board, r, abandoned), 0,
                                     timeout_s);
      try {
        body(communicator);
      } catch (const std::exception& error) {
        ADD_FAILURE() << "rank " << r << ": " << error.what();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return abandoned;
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

TEST(Frames, GatherPartsOfAnySizeInRankOrder) {
  const int abandoned = on_frames(3, 20, [](Communicator& c) {
    // None, less than a frame's payload, the payload, one more, several frames.
    for (const std::size_t bytes : {std::size_t{0}, std::size_t{8}, kFrameBytes - 16,
                                    kFrameBytes - 15, 5 * kFrameBytes + 3}) {
      std::vector<std::byte> mine(bytes), all(3 * bytes, std::byte{0xff});
      const auto rank = static_cast<std::size_t>(c.rank());
      for (std::size_t i = 0; i < bytes; ++i) mine[i] = std::byte((i * 7 + rank * 31) % 251);
      c.all_gather(mine, all, "parts");
      for (std::size_t r = 0; r < 3; ++r) {
        for (std::size_t i = 0; i < bytes; ++i) {
          ASSERT_EQ(all[r * bytes + i], std::byte((i * 7 + r * 31) % 251)) << bytes << " at " << i;
        }
      }
    }
    EXPECT_EQ(c.device(), 0);
    require_agreement(c, "plan", std::string(20'000, 'x'));
  });
  EXPECT_EQ(abandoned, 0);
}

TEST(Frames, FindPartsOfDifferentSizeOnEveryRank) {
  on_frames(3, 20, [](Communicator& c) {
    const std::vector<std::byte> mine(c.rank() == 1 ? 9000 : 8);
    std::vector<std::byte> all(3 * mine.size());
    EXPECT_THAT(text_of<CommError>([&] { c.all_gather(mine, all, "sizes"); }),
                HasSubstr(c.rank() == 1 ? "'sizes': rank 1 brings 9000 bytes, rank 0 brings 8"
                                        : "brings 8 bytes, rank 1 brings 9000"));
  });
}

TEST(Frames, RefuseAWrongOutputSize) {
  on_frames(1, 20, [](Communicator& c) {
    std::vector<std::byte> all(3);
    EXPECT_THROW(c.all_gather(std::vector<std::byte>(2), all, "x"), InvalidArgument);
  });
}

TEST(Frames, CarryAFailureIntoTheGatherOfOthersAndCollectAllReports) {
  const int abandoned = on_frames(4, 20, [](Communicator& c) {
    const std::string mine = "reason " + std::to_string(c.rank());
    c.barrier("begin");
    if (c.rank() != 2) {
      std::vector<std::byte> part(c.rank() == 0 ? 0 : 3 * kFrameBytes), all(4 * part.size());
      EXPECT_EQ(
          text_of<CommError>([&] { c.all_gather(part, all, "next"); }),
          "rank " + std::to_string(c.rank()) + " of 4: stopped because rank 2 failed: reason 2");
    }
    const auto reports = c.report_failure(mine);
    ASSERT_EQ(reports.size(), 4U);
    for (int r = 0; r < 4; ++r) {
      EXPECT_EQ(reports[static_cast<std::size_t>(r)], "reason " + std::to_string(r));
    }
    EXPECT_THAT(text_of<CommError>([&] { c.barrier("dead"); }), HasSubstr("rank"));
  });
  EXPECT_EQ(abandoned, 4);  // nobody parts in good order
}

TEST(Frames, EndAWaitAtItsDeadlineAndGiveTheMeshUp) {
  const int abandoned = on_frames(2, 0.2, [](Communicator& c) {
    if (c.rank() == 1) {
      std::this_thread::sleep_for(milliseconds(700));
      EXPECT_THROW(c.barrier("late"), CommError);
      return;
    }
    const auto begin = std::chrono::steady_clock::now();
    EXPECT_THAT(text_of<Timeout>([&] { c.barrier("late"); }), HasSubstr("for 'late'"));
    EXPECT_LT(std::chrono::steady_clock::now() - begin, milliseconds(600));
    EXPECT_THAT(text_of<CommError>([&] { c.barrier("again"); }), HasSubstr("rebuild it"));
    const auto reports = c.report_failure("late");  // returns at once: no frame can follow
    EXPECT_EQ(reports[0], "late");
    EXPECT_FALSE(reports[1].has_value());
  });
  EXPECT_EQ(abandoned, 2);
}

TEST(Frames, ReportWithinAGraceWhereNobodyAnswers) {
  on_frames(2, 20, [](Communicator& c) {
    c.barrier("begin");
    if (c.rank() == 1) {
      std::this_thread::sleep_for(milliseconds(2500));
      return;
    }
    const auto begin = std::chrono::steady_clock::now();
    const auto reports = c.report_failure("alone");
    EXPECT_LT(std::chrono::steady_clock::now() - begin, milliseconds(2300));
    EXPECT_EQ(reports[0], "alone");
    EXPECT_FALSE(reports[1].has_value());
  });
}

TEST(Frames, EndTheirWaitWhenAborted) {
  on_frames(2, 20, [](Communicator& c) {
    if (c.rank() == 1) {
      std::this_thread::sleep_for(milliseconds(300));
      c.abort();
      EXPECT_THROW(c.barrier("aborted"), CommError);
      return;
    }
    std::thread other([&c] {
      std::this_thread::sleep_for(milliseconds(50));
      c.abort();
    });
    EXPECT_EQ(text_of<CommError>([&] { c.barrier("aborted"); }),
              "rank 0 of 2: aborted by the caller");
    other.join();
  });
}

TEST(Frames, RefuseTensorsOfTheHost) {
  on_frames(1, 20, [](Communicator& c) {
    EXPECT_STREQ(c.transport().name(), "nccl");
    EXPECT_THROW(c.transport().start({}), Unsupported);
  });
}

}  // namespace
}  // namespace annulus::comm::frames
