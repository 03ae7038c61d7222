#include <annulus/error.h>
#include <annulus/mesh.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace annulus {
namespace {

TEST(NoMpi, SaysWhatToInstall) {
  try {
    Mesh::from_mpi(0, {});
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Unsupported& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr("libopenmpi-dev"));
  }
}

}  // namespace
}  // namespace annulus
