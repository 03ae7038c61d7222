#include "runtime/base/handle.h"

#include <gtest/gtest.h>

#include <type_traits>
#include <utility>

namespace annulus {
namespace {

struct CountingTraits {
  using Type = int*;
  static Type null() { return nullptr; }
  static void close(Type counter) noexcept { ++*counter; }
};
using Handle = UniqueHandle<CountingTraits>;

TEST(UniqueHandle, ClosesOnce) {
  int closed = 0;
  {
    Handle first(&closed);
    Handle second(std::move(first));
    EXPECT_FALSE(first);  // NOLINT(bugprone-use-after-move): the state after a move is the claim
    EXPECT_TRUE(second);
  }
  EXPECT_EQ(closed, 1);
}

TEST(UniqueHandle, ClosesTheOldOneOnAssignment) {
  int old_closed = 0;
  int new_closed = 0;
  Handle handle(&old_closed);
  handle = Handle(&new_closed);
  EXPECT_EQ(old_closed, 1);
  EXPECT_EQ(new_closed, 0);
  EXPECT_EQ(handle.release(), &new_closed);
  handle.reset();
  EXPECT_EQ(new_closed, 0);
}

TEST(UniqueHandle, FillsInWhatACFunctionMakes) {
  int closed = 0;
  Handle handle(&closed);
  int other = 0;
  *handle.out() = &other;
  EXPECT_EQ(closed, 1);
  EXPECT_EQ(handle.get(), &other);
}

static_assert(!std::is_copy_constructible_v<Handle>);

}  // namespace
}  // namespace annulus
