#include "launch/output.h"
#include "tests/launch/scratch.h"

#include <gmock/gmock.h>

#include <sstream>

namespace annulus::launch::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class Output : public Scratch {
 protected:
  std::string read(const std::string& name) const {
    std::ostringstream text;
    text << std::ifstream(folder() / name).rdbuf();
    return text.str();
  }
  std::ptrdiff_t files() const {
    return std::distance(std::filesystem::directory_iterator(folder()),
                         std::filesystem::directory_iterator());
  }
};

TEST_F(Output, AppearsWhole) {
  OutputFile file(folder() / "r.json", "--json");
  EXPECT_FALSE(std::filesystem::exists(folder() / "r.json"));
  file.commit("{}\n");
  EXPECT_EQ(read("r.json"), "{}\n");
  EXPECT_EQ(files(), 1);
}

TEST_F(Output, FailedRunLeavesTheOldOne) {
  write("r.json", "old");
  { const OutputFile file(folder() / "r.json", "--json"); }
  EXPECT_EQ(read("r.json"), "old");
  EXPECT_EQ(files(), 1);
}

TEST_F(Output, RefusesBeforeCompute) {
  const std::string missing =
      refusal([&] { const OutputFile file(folder() / "no/r.json", "--json"); });
  EXPECT_THAT(missing, AllOf(StartsWith("--json: '"), HasSubstr("folder does not exist")));
  EXPECT_THAT(refusal([&] { const OutputFile file(folder(), "--json"); }),
              HasSubstr("is a folder"));
}

TEST_F(Output, NothingWantedNothingWritten) {
  OutputFile file({}, "--json");
  EXPECT_FALSE(file.wanted());
  file.commit("x");
  EXPECT_EQ(files(), 0);
}

}  // namespace
}  // namespace annulus::launch::test
