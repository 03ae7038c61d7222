#include "launch/io/safetensors.h"
#include "launch/io/tensor_output.h"
#include "tests/launch/scratch.h"

#include <gmock/gmock.h>

#include <span>
#include <vector>

namespace annulus::launch::test {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string safetensors(const std::string& header, std::size_t data) {
  std::string file;
  for (std::size_t i = 0; i < 8; ++i) file += static_cast<char>(header.size() >> (8 * i) & 0xffU);
  return file + header + std::string(data, '\x01');
}

class Safetensors : public Scratch {
 protected:
  StoredTensor read(const std::string& bytes, const std::string& name = "q") const {
    return TensorReader({.file = write("x.safetensors", bytes), .name = name}, "--q").tensor();
  }
};

TEST_F(Safetensors, ReadsOneOfSeveral) {
  const std::string file = safetensors(
      R"({"__metadata__":{"format":"pt"},"q":{"dtype":"BF16","shape":[2,3],"data_offsets":[4,16]},)"
      R"("i":{"dtype":"I32","shape":[],"data_offsets":[0,4]}}  )",
      16);
  const StoredTensor t = read(file);
  EXPECT_EQ(t.dtype, DType::bf16);
  EXPECT_THAT(t.shape, ElementsAre(2, 3));
  EXPECT_EQ(t.offset + t.bytes(), static_cast<std::int64_t>(file.size()));
}

struct BadFile {
  const char* name;
  std::string bytes;
  const char* text;
};

TEST_F(Safetensors, RefusesWhatItCannotMean) {
  const auto one = [](const std::string& entry, std::size_t data) {
    return safetensors("{\"q\":" + entry + "}", data);
  };
  const std::string good = one(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8]})", 8);
  std::string deep(100, '[');
  const BadFile cases[] = {
      {"empty", "", "cut off: 0 bytes"},
      {"header cut off", good.substr(0, 20), "cut off in its header"},
      {"header of 2^63", std::string("\0\0\0\0\0\0\0\x80", 8) + "{}", "header of"},
      {"no object", safetensors("[1]", 0), "no JSON"},
      {"no JSON", safetensors("{\"q\":", 0), "no JSON"},
      {"deep", safetensors("{\"q\":" + deep, 0), "nested"},
      {"twice",
       safetensors(R"({"q":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                   R"("q":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
                   4),
       "twice"},
      {"data cut off", good.substr(0, good.size() - 1), "cut off: its tensors need 8 bytes"},
      {"bytes behind", good + "x", "1 bytes behind"},
      {"key missing", one(R"({"dtype":"F32","shape":[2]})", 8), "needs dtype"},
      {"key too much", one(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1})", 8),
       "needs dtype"},
      {"size", one(R"({"dtype":"F32","shape":[3],"data_offsets":[0,8]})", 8), "needs 12 bytes"},
      {"backwards", one(R"({"dtype":"F32","shape":[2],"data_offsets":[8,0]})", 8),
       "another number"},
      {"negative", one(R"({"dtype":"F32","shape":[-2],"data_offsets":[0,8]})", 8), "its shape"},
      {"fraction", one(R"({"dtype":"F32","shape":[2.0],"data_offsets":[0,8]})", 8), "its shape"},
      {"huge", one(R"({"dtype":"F32","shape":[4611686018427387904,8],"data_offsets":[0,8]})", 8),
       "too large"},
      {"unknown dtype", one(R"({"dtype":"F33","shape":[2],"data_offsets":[0,8]})", 8), "unknown"},
      {"f64", one(R"({"dtype":"F64","shape":[1],"data_offsets":[0,8]})", 8), "as F64"},
      {"gap", one(R"({"dtype":"F32","shape":[1],"data_offsets":[4,8]})", 8), "a gap"},
      {"overlap",
       safetensors(R"({"q":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                   R"("k":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
                   12),
       "an overlap"},
      {"metadata",
       safetensors(
           R"({"__metadata__":{"a":1},"q":{"dtype":"F32","shape":[],"data_offsets":[0,4]}})", 4),
       "__metadata__"},
      {"other name", safetensors(R"({"kk":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4),
       "no tensor 'q'; it has: kk"},
  };
  for (const BadFile& c : cases) {
    EXPECT_THAT(refusal([&] { read(c.bytes); }), AllOf(HasSubstr("--q: '"), HasSubstr(c.text)))
        << c.name;
  }
}

TEST_F(Safetensors, OutputsOfOneFileShareIt) {
  const auto output = [&](const char* file, const char* name, std::vector<std::int64_t> shape) {
    return OutputTensor{.path = {.file = folder() / file, .name = name},
                        .where = "--out",
                        .tensor = {.dtype = DType::f32, .shape = std::move(shape)}};
  };
  {
    TensorOutputs outputs({output("r.safetensors", "out", {1, 2}),
                           output("b.safetensors", "x", {1}),
                           output("./r.safetensors", "lse", {1, 3})});
    const std::vector<float> values{1, 2, 3};
    outputs.write(2, 0, std::as_bytes(std::span(values)));
    outputs.write(0, 0, std::as_bytes(std::span(values).first(2)));
    outputs.commit();
  }
  const TensorReader out({.file = folder() / "r.safetensors", .name = "out"}, "--q");
  const TensorReader lse({.file = folder() / "r.safetensors", .name = "lse"}, "--q");
  std::vector<float> back(3);
  lse.read(0, std::as_writable_bytes(std::span(back)));
  EXPECT_THAT(back, ElementsAre(1, 2, 3));
  EXPECT_THAT(out.tensor().shape, ElementsAre(1, 2));
  EXPECT_THAT(refusal([&] {
                const TensorOutputs twice(
                    {output("t.safetensors", "x", {1}), output("t.safetensors", "x", {1})});
              }),
              HasSubstr("same name"));
}

}  // namespace
}  // namespace annulus::launch::test
