// What a link between GPUs enqueues on streams, in what order, without a GPU: a driver that writes
// down memory operations, and a runtime that writes down copies.
#include "comm/peer/peer_link.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace annulus::comm::peer {
namespace {

void note_copy(const void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch);

}  // namespace
}  // namespace annulus::comm::peer

// Stand before CUDA's (CMakeLists.txt).
extern "C" {
cudaError_t __wrap_cudaMemcpyAsync(void* to, const void* from, std::size_t, cudaMemcpyKind,
                                   cudaStream_t) {
  annulus::comm::peer::note_copy(to, 0, from, 0);
  return cudaSuccess;
}
cudaError_t __wrap_cudaMemcpy2DAsync(void* to, std::size_t to_pitch, const void* from,
                                     std::size_t from_pitch, std::size_t, std::size_t,
                                     cudaMemcpyKind, cudaStream_t) {
  annulus::comm::peer::note_copy(to, to_pitch, from, from_pitch);
  return cudaSuccess;
}
}

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

/// What is copied on streams, in rows of 8 bytes.
struct Copy {
  const void* to = nullptr;
  std::size_t to_pitch = 0;
  const void* from = nullptr;
  std::size_t from_pitch = 0;
  bool operator==(const Copy&) const = default;
};

std::vector<Copy> copies;

void note_copy(const void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch) {
  copies.push_back({to, to_pitch, from, from_pitch});
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
  EXPECT_EQ(calls[0], (std::vector{gives(0), gives(1), note(1), waits(0), resets(0), note(2),
                                   waits(1), resets(1), note(0)}));
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

/// An end in a caller's tensor lies where the call's tensor does: pulled to, pushed from.
TEST_F(PeerLinkOperations, CopiesToWhereTheCallersTensorLies) {
  std::byte peer[64], first[64], second[64];
  const auto at = [](std::byte* base, std::int64_t pitch) {
    return Region{.base = base, .count = {1, 3, 1}, .stride = {0, pitch, 8}, .run = 8};
  };
  for (const bool sends : {false, true}) {
    PeerLink link(driver_, 0, blocks_,
                  {{.sends = sends,
                    .peer = 1,
                    .own = at(nullptr, 16),
                    .theirs = at(peer, 8),
                    .pulls = !sends}},
                  kHash, true);
    copies.clear();
    ASSERT_FALSE(link.by_flag(0));
    for (const auto& [base, pitch] : {std::pair(first, 16), std::pair(first, 16),
                                      std::pair(second, 16), std::pair(second, 20)}) {
      link.set_own(0, at(base, pitch));
      link.start(0, on_);
    }
    link.flush();
    const auto own = [&](std::byte* base, std::size_t pitch) {
      return sends ? Copy{peer, 8, base, pitch} : Copy{base, pitch, peer, 8};
    };
    EXPECT_EQ(copies,
              (std::vector{own(first, 16), own(first, 16), own(second, 16), own(second, 20)}));
  }
}

}  // namespace
}  // namespace annulus::comm::peer
