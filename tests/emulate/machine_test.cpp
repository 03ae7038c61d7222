// The emulated machine itself: what it does to right programs and says of wrong ones.
#include "tests/emulate/copies.h"
#include "tests/emulate/machine.h"
#include "tests/emulate/tensor_core.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <string>

namespace annulus::emulate {
namespace {

using ::testing::HasSubstr;

std::string complaint(int threads, const std::function<void(Machine&)>& body) {
  Machine machine({.seed = 5, .late = {}});
  try {
    machine.run(threads, {}, {1, 1, 1}, [&] { body(machine); });
  } catch (const Misuse& misuse) {
    return misuse.what();
  }
  return "";
}

std::uint64_t* word(Machine& machine, int i) {
  return reinterpret_cast<std::uint64_t*>(machine.shared()) + i;
}

TEST(Machine, ShufflesAndBarriers) {
  EXPECT_EQ(complaint(96,
                      [](Machine& machine) {
                        const int lane = machine.thread() % 32;
                        for (int i = 0; i < 5; ++i) {
                          const auto got = machine.exchange(
                              static_cast<std::uint64_t>(100 * i + lane), lane ^ 3);
                          if (got != static_cast<std::uint64_t>(100 * i + (lane ^ 3))) {
                            machine.misuse("shuffle");
                          }
                          machine.barrier(1, 96, true);
                        }
                      }),
            "");
}

/// A ring of one slot: the producer is never a phase ahead.
TEST(Machine, PhasesOfBarriers) {
  int value = 0;
  EXPECT_EQ(complaint(2,
                      [&](Machine& machine) {
                        if (machine.thread() == 0) {
                          machine.init(word(machine, 0), 1);
                          machine.init(word(machine, 1), 1);
                        }
                        machine.barrier(0, 2, true);
                        for (int i = 0; i < 9; ++i) {
                          const auto parity = static_cast<std::uint32_t>(i) & 1U;
                          if (machine.thread() == 0) {
                            machine.await(word(machine, 1), parity ^ 1U);
                            value = i;
                            machine.arrive(word(machine, 0), 0);
                          } else {
                            machine.await(word(machine, 0), parity);
                            if (value != i) machine.misuse("phase");
                            machine.arrive(word(machine, 1), 0);
                          }
                        }
                      }),
            "");
}

TEST(Machine, SaysWhatIsWrong) {
  EXPECT_THAT(complaint(3, [](Machine& machine) { machine.barrier(2, 4, true); }),
              HasSubstr("3 threads (0 to 2) wait for barrier 2"));
  EXPECT_THAT(complaint(2,
                        [](Machine& machine) {
                          machine.init(word(machine, 3), 1);
                          machine.await(word(machine, 3), 0);
                        }),
              HasSubstr("the mbarrier at 1048"));
  EXPECT_THAT(complaint(1, [](Machine& machine) { machine.arrive(word(machine, 0), 0); }),
              HasSubstr("not initialised"));
  EXPECT_THAT(complaint(1,
                        [](Machine& machine) {
                          machine.init(word(machine, 0), 1);
                          machine.complete(word(machine, 0), 16);
                        }),
              HasSubstr("more bytes than it expects"));
  EXPECT_THAT(complaint(1, [](Machine& machine) { (void)machine.at(kSharedBase - 16, 16); }),
              HasSubstr("shared address 1008"));
}

TEST(Machine, OrdinaryStoresNeedAFence) {
  const auto body = [](Machine& machine, bool fence) {
    machine.written(kSharedBase + 40);
    if (fence) machine.fence();
    machine.require_fenced(kSharedBase + 32);
  };
  EXPECT_EQ(complaint(1, [&](Machine& machine) { body(machine, true); }), "");
  EXPECT_THAT(complaint(1, [&](Machine& machine) { body(machine, false); }),
              HasSubstr("did not fence"));
}

/// Written out by hand from the PTX ISA's figures of the 128-byte swizzle.
TEST(TensorCore, AddressesOfElements) {
  Machine machine({.seed = 1, .late = {}});
  constexpr std::uint64_t kMode = std::uint64_t{1} << 62;
  const std::uint64_t along = kMode | (std::uint64_t{1024 >> 4} << 32) | (2048 >> 4);
  EXPECT_EQ(element_address(along, false, 0, 0), 2048U);
  EXPECT_EQ(element_address(along, false, 0, 9), 2048U + 18);
  EXPECT_EQ(element_address(along, false, 1, 0), 2048U + 128 + 16);
  EXPECT_EQ(element_address(along, false, 7, 8), 2048U + 7 * 128 + (1 ^ 7) * 16);
  EXPECT_EQ(element_address(along, false, 9, 1), 2048U + 1024 + 128 + 16 + 2);
  EXPECT_EQ(element_address(along + 2, false, 3, 0), 2048U + 3 * 128 + (2 ^ 3) * 16);
  const std::uint64_t across = along | (std::uint64_t{16384 >> 4} << 16);
  EXPECT_EQ(element_address(across, true, 0, 0), 2048U);
  EXPECT_EQ(element_address(across, true, 8, 2), 2048U + 2 * 128 + (1 ^ 2) * 16);
  EXPECT_EQ(element_address(across, true, 65, 9), 2048U + 16384 + 1024 + 128 + 16 + 2);
}

}  // namespace
}  // namespace annulus::emulate
