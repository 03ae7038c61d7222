#include "launch/io/npy.h"
#include "launch/io/tensor_output.h"
#include "tests/launch/scratch.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include <cstring>
#include <span>
#include <vector>

namespace annulus::launch::test {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// A .npy of format `major`.0 with this dict and so many bytes of data.
std::string npy(const std::string& dict, std::size_t data, int major = 1) {
  std::string file = "\x93NUMPY";
  file += {static_cast<char>(major), '\0'};
  const std::size_t length = dict.size() + 1;
  for (int i = 0; i < (major == 1 ? 2 : 4); ++i) {
    file += static_cast<char>(length >> (8 * i) & 0xffU);
  }
  return file + dict + "\n" + std::string(data, '\x01');
}

std::string dict_of(const std::string& descr, const std::string& shape,
                    const std::string& fortran = "False") {
  return fmt::format("{{'descr': '{}', 'fortran_order': {}, 'shape': {}, }}", descr, fortran,
                     shape);
}

class Npy : public Scratch {
 protected:
  StoredTensor read(const std::string& bytes) const {
    return TensorReader({.file = write("x.npy", bytes), .name = {}}, "--q").tensor();
  }
};

TEST_F(Npy, ReadsEveryVersionAndSpelling) {
  for (const int major : {1, 2, 3}) {
    const StoredTensor t = read(npy(dict_of("<f4", "(2, 3)"), 24, major));
    EXPECT_EQ(t.dtype, DType::f32);
    EXPECT_THAT(t.shape, ElementsAre(2, 3));
    EXPECT_EQ(t.bytes(), 24);
  }
  EXPECT_EQ(read(npy(dict_of("<f2", "(5,)"), 10)).dtype, DType::f16);
  EXPECT_THAT(read(npy(dict_of("<f4", "()"), 4)).shape, ElementsAre());
  EXPECT_THAT(read(npy(dict_of("<f4", "(0, 7)"), 0)).shape, ElementsAre(0, 7));
  EXPECT_THAT(read(npy("{\"shape\":(4,),\"fortran_order\":False,\"descr\":\"<f4\"}   ", 16)).shape,
              ElementsAre(4));
}

struct BadFile {
  const char* name;
  std::string bytes;
  const char* text;
};

TEST_F(Npy, RefusesWhatItCannotMean) {
  const std::string good = npy(dict_of("<f4", "(2, 3)"), 24);
  const BadFile cases[] = {
      {"empty", "", "cut off: 0 bytes"},
      {"another format", "PK\x03\x04 zip archive", "no .npy file"},
      {"version 4", npy(dict_of("<f4", "(2, 3)"), 24, 4), "version 4.0"},
      {"header cut off", good.substr(0, 40), "cut off in its header"},
      {"header of 4 GiB", "\x93NUMPY\x02" + std::string(1, '\0') + "\xff\xff\xff\xff{}",
       "header of"},
      {"big endian", npy(dict_of(">f4", "(2, 3)"), 24), "big-endian"},
      {"f64", npy(dict_of("<f8", "(2, 3)"), 48), "another dtype: '<f8'"},
      {"records", npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,), }", 8),
       "another dtype"},
      {"Fortran", npy(dict_of("<f4", "(2, 3)", "True"), 24), "Fortran order"},
      {"data cut off", good.substr(0, good.size() - 1), "needs 24 bytes, 23 are there"},
      {"bytes behind", good + "x", "1 bytes behind"},
      {"no dict", npy("[1, 2]", 8), "has a header that is not"},
      {"key missing", npy("{'descr': '<f4', 'shape': (2,), }", 8), "has a header that is not"},
      {"key twice",
       npy("{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", 8),
       "has a header that is not"},
      {"key unknown", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'x': 1}", 8),
       "has a header that is not"},
      {"negative", npy(dict_of("<f4", "(-2, 3)"), 24), "has a header that is not"},
      {"no tuple", npy(dict_of("<f4", "(6)"), 24), "has a header that is not"},
      {"words behind", npy(dict_of("<f4", "(6,)") + " import os", 24), "has a header that is not"},
      {"too large", npy(dict_of("<f4", "(4611686018427387904, 4)"), 24), "too large"},
      {"too large behind 0", npy(dict_of("<f4", "(0, 4611686018427387904, 4)"), 0), "too large"},
  };
  for (const BadFile& c : cases) {
    EXPECT_THAT(refusal([&] { read(c.bytes); }),
                AllOf(HasSubstr("--q: '"), HasSubstr("x.npy'"), HasSubstr(c.text)))
        << c.name;
  }
}

TEST_F(Npy, RefusesWhatIsNoFile) {
  const auto open = [](const std::filesystem::path& file) {
    return refusal([&] { TensorReader({.file = file, .name = {}}, "--k"); });
  };
  EXPECT_THAT(open(folder() / "none.npy"), HasSubstr("does not exist"));
  EXPECT_THAT(open(folder()), HasSubstr("is not a regular file"));
}

TEST_F(Npy, ReadsBackWhatItWrote) {
  const std::vector<float> values{1, 2, 3, 4, 5, 6};
  const TensorPath path{.file = folder() / "out.npy", .name = {}};
  const StoredTensor tensor{.dtype = DType::f32, .shape = {1, 3, 2}};
  {
    TensorOutputs outputs({{.path = path, .where = "--out", .tensor = tensor}});
    // In parts, the later one first.
    outputs.write(0, 8, std::as_bytes(std::span(values).subspan(2)));
    outputs.write(0, 0, std::as_bytes(std::span(values).first(2)));
    EXPECT_FALSE(std::filesystem::exists(path.file)) << "appears whole or not at all";
    outputs.commit();
  }
  const TensorReader reader(path, "--q");
  EXPECT_EQ(reader.tensor().shape, tensor.shape);
  EXPECT_EQ(reader.tensor().offset % 64, 0) << "NumPy aligns data to 64 bytes";
  std::vector<float> back(4);
  reader.read(8, std::as_writable_bytes(std::span(back)));
  EXPECT_THAT(back, ElementsAre(3, 4, 5, 6));
}

TEST_F(Npy, UncommittedOutputLeavesNothing) {
  {
    const TensorOutputs outputs({{.path = {.file = folder() / "out.npy", .name = {}},
                                  .where = "--out",
                                  .tensor = {.dtype = DType::f32, .shape = {2}}}});
    EXPECT_FALSE(std::filesystem::is_empty(folder()));
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder()));
}

TEST_F(Npy, RefusesOutputsThatCannotBe) {
  const auto open = [](std::vector<OutputTensor> outputs) {
    return refusal([&] { const TensorOutputs opened(std::move(outputs)); });
  };
  const auto output = [&](const char* file, DType dtype) {
    return OutputTensor{.path = {.file = folder() / file, .name = {}},
                        .where = "--dq",
                        .tensor = {.dtype = dtype, .shape = {2}}};
  };
  EXPECT_THAT(open({output("a.npy", DType::bf16)}), HasSubstr("no bf16"));
  EXPECT_THAT(open({output("no/a.npy", DType::f32)}), HasSubstr("folder does not exist"));
  EXPECT_THAT(open({output("a.npy", DType::f32), output("./a.npy", DType::f32)}),
              HasSubstr("same name"));
  EXPECT_THAT(open({output("", DType::f32)}), HasSubstr("is a folder"));
  EXPECT_TRUE(std::filesystem::is_empty(folder())) << "a refused output leaves nothing";
}

TEST(TensorPath, TellsFormatsByTheirEnding) {
  EXPECT_EQ(parse_tensor_path("a:b.npy", "q", "--q"), (TensorPath{"a:b.npy", ""}));
  EXPECT_EQ(parse_tensor_path("x.safetensors", "q", "--q"), (TensorPath{"x.safetensors", "q"}));
  EXPECT_EQ(parse_tensor_path("x.safetensors:l.0:q", "q", "--q"),
            (TensorPath{"x.safetensors", "l.0:q"}));
  for (const char* bad : {"x.pt", "npy", "x.npy:q", "x.safetensors:"}) {
    EXPECT_THAT(refusal([&] { parse_tensor_path(bad, "q", "--q"); }), HasSubstr("--q: '")) << bad;
  }
}

}  // namespace
}  // namespace annulus::launch::test
