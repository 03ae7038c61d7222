// What a link between GPUs enqueues on streams, in what order, without a GPU: a driver that writes
// down memory operations. The transfers here have no copies, which would want one.
#include "comm/peer/peer_link.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace annulus::comm::peer {
namespace {

struct Operation {
  bool writes = false;
  const std::uint32_t* word = nullptr;
  std::uint32_t value = 0;
  bool operator==(const Operation&) const = default;
};

std::vector<std::vector<Operation>> calls;

CUresult CUDAAPI note_batch(CUstream, unsigned count, CUstreamBatchMemOpParams* ops, unsigned) {
  calls.emplace_back();
  for (unsigned i = 0; i < count; ++i) {
    const bool writes = ops[i].operation == CU_STREAM_MEM_OP_WRITE_VALUE_32;
    calls.back().push_back({writes,
                            reinterpret_cast<const std::uint32_t*>(
                                writes ? ops[i].writeValue.address : ops[i].waitValue.address),
                            writes ? ops[i].writeValue.value : ops[i].waitValue.value});
  }
  return CUDA_SUCCESS;
}

constexpr std::uint32_t kHash = 77;

/// Rank 0 of two, which receives `count` transfers from rank 1, or is told of them.
class PeerLinkOperations : public ::testing::Test {
 protected:
  PeerLinkOperations()
      : memory_(2, std::vector<std::byte>(static_cast<std::size_t>(ControlBlock::bytes(2)))) {
    calls.clear();
    driver_.batch = note_batch;
    for (std::vector<std::byte>& block : memory_) blocks_.emplace_back(block.data(), 2);
  }

  PeerLink link(int count, bool pulls) const {
    std::vector<DeviceTransfer> transfers;
    for (std::int32_t i = 0; i < count; ++i) {
      transfers.push_back(
          {.peer = 1, .tag = i, .round = i, .own = {}, .theirs = {}, .pulls = pulls});
    }
    return {driver_, 0, blocks_, transfers, kHash, true};
  }

  Operation note(std::uint32_t value) const { return {true, &note_, value}; }
  Operation waits(std::int32_t tag) const { return {false, blocks_[0].ready(1, tag), kHash}; }
  Operation resets(std::int32_t tag) const { return {true, blocks_[0].ready(1, tag), 0}; }
  // Of pushes.
  Operation opens(std::int32_t tag) const { return {true, blocks_[1].open(0, tag), kHash}; }
  Operation hears(std::int32_t tag) const { return {false, blocks_[0].there(1, tag), kHash}; }
  Operation forgets(std::int32_t tag) const { return {true, blocks_[0].there(1, tag), 0}; }
  Operation gives(std::int32_t tag) const { return {true, blocks_[1].free(0, tag), kHash}; }

  std::vector<std::vector<std::byte>> memory_;
  std::vector<ControlBlock> blocks_;
  Driver driver_;
  mutable std::uint32_t note_ = 0;
  LinkStream on_{nullptr, &note_};
};

/// A signal is reset before its writer is told that it may raise it again, and nothing but the wait
/// stands between a note and its copy. Between two copies is one call of four operations.
TEST_F(PeerLinkOperations, OfTransfersOneAfterTheOther) {
  const PeerLink link = this->link(3, true);
  for (std::int32_t i = 0; i < 3; ++i) {
    ASSERT_FALSE(link.by_flag(i));
    link.start(i, on_);
  }
  link.flush();
  EXPECT_EQ(calls, (std::vector<std::vector<Operation>>{{note(1), waits(0)},
                                                        {resets(0), gives(0), note(2), waits(1)},
                                                        {resets(1), gives(1), note(3), waits(2)},
                                                        {resets(2), gives(2), note(0)}}));
}

TEST_F(PeerLinkOperations, OfSourcesAndTheirRelease) {
  const PeerLink link = this->link(2, true);
  const std::vector<std::int32_t> all{0, 1};
  link.await_sources(all, on_);
  link.flush();
  link.release(all, on_);
  link.flush();
  ASSERT_EQ(calls.size(), 2U);
  EXPECT_EQ(calls[0], (std::vector{note(1), waits(0), note(2), waits(1)}));
  EXPECT_EQ(calls[1], (std::vector{resets(0), resets(1), gives(0), gives(1), note(0)}));
}

/// Where the sender pushes, the receiver raises its flag, and later waits for the sender's. Behind
/// the last wait one reset is left, however many there are.
TEST_F(PeerLinkOperations, OfFlags) {
  const PeerLink link = this->link(2, false);
  const std::vector<std::int32_t> all{0, 1};
  link.raise(all, on_);
  link.await_over({}, on_);
  link.await_over(all, on_);
  link.flush();
  ASSERT_EQ(calls.size(), 1U);
  EXPECT_EQ(calls[0], (std::vector{opens(0), opens(1), note(1), hears(0), forgets(0), note(2),
                                   hears(1), forgets(1), note(0)}));
}

/// Of a bundle of two rounds the first is asked for, and the last of each is told.
TEST_F(PeerLinkOperations, OfBundles) {
  std::vector<DeviceTransfer> transfers;
  for (const bool sends : {false, true}) {
    for (std::int32_t i = 0; i < 4; ++i) {
      transfers.push_back({.sends = sends,
                           .peer = 1,
                           .tag = i,
                           .round = i / 2,
                           .own = {},
                           .theirs = {},
                           .pulls = false,
                           .bundle = 0});
    }
  }
  const PeerLink link(driver_, 0, blocks_, transfers, kHash, true);
  link.raise(std::vector<std::int32_t>{0, 1, 2, 3}, on_);
  const std::vector<std::int32_t> sends{4, 5, 6, 7};
  link.await_sources(sends, on_);
  link.flush();
  link.release(std::span(sends).first(2), on_);
  link.await_over(std::vector<std::int32_t>{link.closer(0)}, on_);
  link.flush();
  link.release(std::span(sends).last(2), on_);
  link.flush();
  const auto tells = [&](std::int32_t tag) {
    return Operation{true, blocks_[1].there(0, tag), kHash};
  };
  const Operation waits_open{false, blocks_[0].open(1, 0), kHash};
  const Operation resets_open{true, blocks_[0].open(1, 0), 0};
  EXPECT_EQ(calls, (std::vector<std::vector<Operation>>{
                       {opens(0), note(5), waits_open},
                       {resets_open, tells(1), note(2), hears(1), forgets(1), note(0)},
                       {tells(3), note(0)}}));
  EXPECT_EQ(link.closer(2), 3);
  EXPECT_EQ(link.awaited_signal(0).word, nullptr);
  EXPECT_EQ(link.awaited_signal(4).word, blocks_[0].open(1, 0));
}

/// Each stream has its own calls, in the order in which they were said.
TEST_F(PeerLinkOperations, OfTwoStreams) {
  const PeerLink link = this->link(2, true);
  int other = 0;
  const LinkStream second{reinterpret_cast<cudaStream_t>(&other), &note_};
  link.write(&note_, 5, on_);
  link.write(&note_, 6, on_);
  link.write(&note_, 7, second);
  link.flush();
  EXPECT_EQ(calls, (std::vector<std::vector<Operation>>{{note(6)}, {note(7)}}));
}

}  // namespace
}  // namespace annulus::comm::peer
