// Memory that processes of one host share, mailboxes in it, and copies in parts.
#include "comm/region_copy.h"
#include "comm/shared/mailbox.h"
#include "comm/shared/memory.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <thread>
#include <vector>

namespace annulus::testing {
namespace {

using comm::shared::Mailbox;
using comm::shared::MemoryName;
using comm::shared::Message;
using comm::shared::SharedMemory;

TEST(SharedMemory, IsReadAndWrittenByAnotherProcess) {
  auto mine = SharedMemory::create(100'000);
  ASSERT_TRUE(mine);
  mine->data()[99'999] = std::byte{7};
  const MemoryName name = mine->name();
  const pid_t child = fork();
  if (child == 0) {
    auto theirs = SharedMemory::open(name);
    if (!theirs || theirs->data()[99'999] != std::byte{7}) _exit(1);
    theirs->data()[0] = std::byte{9};
    theirs->step_back(theirs->data(), theirs->data() + theirs->bytes());
    _exit(theirs->data()[0] == std::byte{9} ? 0 : 2);
  }
  int status = -1;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(mine->data()[0], std::byte{9});
}

TEST(SharedMemory, OpensOnlyWhatHasTheName) {
  auto mine = SharedMemory::create(4096);
  ASSERT_TRUE(mine);
  const MemoryName name = mine->name();
  EXPECT_TRUE(SharedMemory::open(name));
  MemoryName other = name;
  other.inode += 1;
  EXPECT_FALSE(SharedMemory::open(other)) << "another memory";
  other = name;
  other.bytes = 8192;
  EXPECT_FALSE(SharedMemory::open(other)) << "another size";
  other = name;
  other.descriptor = STDIN_FILENO;
  EXPECT_FALSE(SharedMemory::open(other)) << "no such memory";
  mine->hide();
  EXPECT_FALSE(SharedMemory::open(name)) << "hidden";
}

TEST(SharedMemory, MovesWithItsHandle) {
  auto first = SharedMemory::create(4096);
  ASSERT_TRUE(first);
  std::byte* const data = first->data();
  SharedMemory second(std::move(*first));
  first.reset();
  EXPECT_EQ(second.data(), data);
  second = std::move(*SharedMemory::create(10));
  EXPECT_EQ(second.bytes(), 10);
}

TEST(Mailbox, KeepsOrderAndSaysWhenItIsFullOrEmpty) {
  Mailbox box;
  Message message;
  EXPECT_FALSE(box.take(message));
  int put = 0;
  while (box.put({.tag = put})) ++put;
  EXPECT_GE(put, 16);
  for (int i = 0; i < put; ++i) {
    ASSERT_TRUE(box.take(message));
    EXPECT_EQ(message.tag, i);
  }
  EXPECT_FALSE(box.take(message));
}

TEST(Mailbox, CarriesBetweenThreads) {
  constexpr int kCount = 100'000;
  Mailbox box;
  std::jthread writer([&] {
    for (int i = 0; i < kCount; ++i) {
      while (!box.put({.tag = i, .bytes = -i})) std::this_thread::yield();
    }
  });
  int wrong = 0;
  for (int i = 0; i < kCount; ++i) {
    Message message;
    while (!box.take(message)) std::this_thread::yield();
    wrong += message.tag != i || message.bytes != -i ? 1 : 0;
  }
  EXPECT_EQ(wrong, 0);
}

TEST(RegionCopy, InPartsIsTheSameAsAtOnce) {
  std::vector<std::byte> from(4000), whole(4000), parts(4000);
  for (std::size_t i = 0; i < from.size(); ++i) from[i] = static_cast<std::byte>(i * 7);
  const auto source = [&] {
    return comm::Region{
        .base = from.data(), .count = {3, 5, 11}, .stride = {1300, 250, 20}, .run = 13};
  };
  const auto target = [](std::vector<std::byte>& to) {
    return comm::Region{.base = to.data(), .count = {1, 165, 1}, .stride = {0, 17, 0}, .run = 13};
  };
  comm::copy_region(source(), target(whole));
  for (const std::int64_t step : {1, 5, 13, 100, 5000}) {
    std::ranges::fill(parts, std::byte{0});
    comm::RegionCopy copy(source(), target(parts));
    int calls = 0;
    for (; !copy.done(); ++calls) {
      const comm::RegionCopy::Part part = copy.advance(step);
      EXPECT_GE(part.source.low, from.data());
      EXPECT_LE(part.target.high, parts.data() + parts.size());
      EXPECT_GE(part.target.high - part.target.low, std::min<std::int64_t>(step, 1));
    }
    EXPECT_EQ(calls, (3 * 5 * 11 * 13 + step - 1) / step);
    EXPECT_EQ(parts, whole) << "step " << step;
  }
}

}  // namespace
}  // namespace annulus::testing
