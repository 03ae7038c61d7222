// Kernels that come in at run time, and what the conformance tests of this binary run.
#include "tests/backends/outside_backend.h"
#include "tests/kernels/under_test.h"

#include <annulus/error.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace annulus::testing {

std::vector<const attn::Kernel*> kernels_under_test() {
  static const attn::RegisteredKernel registered(outside_kernel());
  return attn::kernels("outside");
}

namespace {

using attn::Kernel;
using attn::RegisteredKernel;
using ::testing::HasSubstr;

Kernel row_called(std::string_view backend) {
  Kernel row = outside_kernel();
  row.backend = backend;
  return row;
}

TEST(Registry, FindsAKernelWhileItsRegistrationLives) {
  const std::size_t before = attn::kernels().size();
  {
    const RegisteredKernel registered(row_called("passing"));
    EXPECT_EQ(attn::kernels().size(), before + 1);
    EXPECT_EQ(attn::kernels().back(), &registered.kernel());
    EXPECT_EQ(&attn::find_kernel("auto", {.backend = "passing"}), &registered.kernel());
    EXPECT_EQ(&attn::find_kernel("formula", {.backend = "passing"}), &registered.kernel());
  }
  EXPECT_EQ(attn::kernels().size(), before);
  EXPECT_THROW(attn::find_kernel("auto", {.backend = "passing"}), Unsupported);
}

TEST(Registry, LeavesTheBuiltKernelsFirst) {
  const std::string first(attn::kernels("cpu").front()->name);
  const RegisteredKernel registered(row_called("cpu"));
  EXPECT_EQ(attn::find_kernel("auto", {.backend = "cpu"}).name, first);
  EXPECT_EQ(attn::kernels("cpu").back(), &registered.kernel());
  EXPECT_EQ(&attn::find_kernel("formula", {.backend = "cpu"}), &registered.kernel());
}

TEST(Registry, MovesWithItsHandle) {
  std::optional<RegisteredKernel> first(row_called("moved"));
  const Kernel* row = &first->kernel();
  RegisteredKernel second(std::move(*first));
  first.reset();
  EXPECT_EQ(attn::kernels("moved").at(0), row);
  second = RegisteredKernel(row_called("other"));
  EXPECT_TRUE(attn::kernels("moved").empty());
  EXPECT_EQ(attn::kernels("other").size(), 1U);
}

TEST(Registry, AutoLeavesRowsThatMustBeNamed) {
  Kernel row = row_called("shy");
  row.by_name_only = true;
  const RegisteredKernel registered(row);
  EXPECT_EQ(&attn::find_kernel(row.name, {.backend = "shy"}), &registered.kernel());
  EXPECT_THROW(attn::find_kernel("auto", {.backend = "shy"}), Unsupported);
}

TEST(Registry, RefusesRowsThatLackSomethingOrAreThere) {
  const RegisteredKernel registered(row_called("once"));
  EXPECT_THROW(RegisteredKernel(row_called("once")), InvalidArgument);
  Kernel row = row_called("cpu");
  row.name = "flash2";
  try {
    const RegisteredKernel again(row);
    FAIL() << "took the place of a built kernel";
  } catch (const InvalidArgument& error) {
    EXPECT_THAT(error.what(), HasSubstr("back end 'cpu' has a kernel 'flash2' already"));
  }
  row = row_called("half");
  row.backward = nullptr;
  EXPECT_THROW(RegisteredKernel{row}, InvalidArgument);
  row = row_called("");
  EXPECT_THROW(RegisteredKernel{row}, InvalidArgument);
  row = row_called("tileless");
  row.tile_k = 0;
  EXPECT_THROW(RegisteredKernel{row}, InvalidArgument);
  EXPECT_TRUE(attn::kernels("half").empty());
}

TEST(Registry, IsSafeWhileThreadsRegisterAndLookUp) {
  const std::vector<std::string> names{"a", "b", "c", "d"};
  std::atomic<int> found = 0;
  std::vector<std::thread> threads;
  for (const std::string& name : names) {
    threads.emplace_back([&found, &name] {
      for (int i = 0; i < 200; ++i) {
        const RegisteredKernel registered(row_called(name));
        found += &attn::find_kernel("auto", {.backend = name}) == &registered.kernel() ? 1 : 0;
        attn::kernels();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(found, 800);
  for (const std::string& name : names) EXPECT_TRUE(attn::kernels(name).empty());
}

TEST(Conformance, RunsTheOutsideBackEndAndNoOther) {
  const std::vector<const Kernel*> rows = kernels_under_test();
  ASSERT_EQ(rows.size(), 1U);
  EXPECT_EQ(rows[0]->backend, "outside");
  EXPECT_EQ(rows[0]->name, "formula");
}

}  // namespace
}  // namespace annulus::testing
