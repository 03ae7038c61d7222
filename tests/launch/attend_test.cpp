// attend, whole: files in, the command as a process, files out, against float64.
#include "launch/bench/element.h"
#include "launch/bench/tensors.h"
#include "launch/io/tensor_output.h"
#include "tests/launch/scratch.h"

#include <annulus/reference.h>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <map>
#include <numeric>

namespace annulus::launch::test {
namespace {

using Values = std::vector<double>;

struct AttendCase {
  const char* name;
  DType dtype;
  bool safetensors;
  const char* launcher;   ///< before the command
  const char* arguments;  ///< behind it
  double bound;
};

constexpr std::int64_t kBatch = 2, kSeq = 61, kHeads = 6, kHeadsKv = 2, kDim = 24, kDimV = 16;

class Attend : public Scratch {
 protected:
  std::string place(const std::string& name) const {
    return (folder() / name).string() + (case_.safetensors ? "" : ".npy");
  }
  std::string input(const char* name) const {
    return case_.safetensors ? (folder() / "in.safetensors").string() : place(name);
  }
  std::string output(const char* name) const {
    return case_.safetensors ? (folder() / "out.safetensors").string() : place(name);
  }

  /// Standard normal inputs, rounded to the dtype; also kept as doubles.
  void write_inputs() {
    const Generator generator(3, case_.dtype);
    const std::map<std::string, std::array<std::int64_t, 2>> shapes{{"q", {kHeads, kDim}},
                                                                    {"k", {kHeadsKv, kDim}},
                                                                    {"v", {kHeadsKv, kDimV}},
                                                                    {"dout", {kHeads, kDimV}}};
    std::vector<OutputTensor> outputs;
    for (const auto& [name, shape] : shapes) {
      outputs.push_back(
          {.path = parse_tensor_path(input(name.c_str()), name, name),
           .where = name,
           .tensor = {.dtype = case_.dtype, .shape = {kBatch, kSeq, shape[0], shape[1]}}});
    }
    TensorOutputs files(outputs);
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      const StoredTensor& t = outputs[i].tensor;
      Values& values = inputs_[outputs[i].where];
      values.resize(static_cast<std::size_t>(t.elements()));
      std::vector<std::byte> bytes(static_cast<std::size_t>(t.bytes()));
      generator.row(static_cast<Input>(i), 0, 0, 0, t.elements(), values.data());
      for (std::size_t e = 0; e < values.size(); ++e) {
        store_element(bytes.data(), t.dtype, static_cast<std::int64_t>(e), values[e]);
      }
      files.write(i, 0, bytes);
    }
    files.commit();
  }

  int run() const {
    std::string call =
        fmt::format("{} {} attend --quiet {}", case_.launcher, ANNULUS_COMMAND, case_.arguments);
    for (const char* name : {"q", "k", "v", "dout"})
      call += fmt::format(" --{} {}", name, input(name));
    for (const char* name : {"out", "lse", "dq", "dk", "dv"}) {
      call += fmt::format(" --{} {}", name, output(name));
    }
    return std::system(call.c_str());
  }

  Values read(const char* name, const std::vector<std::int64_t>& shape) const {
    const TensorReader reader(parse_tensor_path(output(name), name, name), name);
    EXPECT_EQ(reader.tensor().shape, shape) << name;
    EXPECT_EQ(reader.tensor().dtype, std::string(name) == "lse" ? DType::f32 : case_.dtype);
    std::vector<std::byte> bytes(static_cast<std::size_t>(reader.tensor().bytes()));
    reader.read(0, bytes);
    Values values(static_cast<std::size_t>(reader.tensor().elements()));
    for (std::size_t e = 0; e < values.size(); ++e) {
      values[e] = load_element(bytes.data(), reader.tensor().dtype, static_cast<std::int64_t>(e));
    }
    return values;
  }

  /// Head h of [batch, seq, heads, dim], compact.
  static Values head(const Values& full, std::int64_t b, std::int64_t h, std::int64_t heads,
                     std::int64_t dim) {
    Values out;
    for (std::int64_t t = 0; t < kSeq; ++t) {
      const auto* row = full.data() + ((b * kSeq + t) * heads + h) * dim;
      out.insert(out.end(), row, row + dim);
    }
    return out;
  }
  static void put(Values& full, const Values& part, std::int64_t b, std::int64_t h,
                  std::int64_t heads, std::int64_t dim) {
    for (std::int64_t t = 0; t < kSeq; ++t) {
      for (std::int64_t d = 0; d < dim; ++d) {
        full[static_cast<std::size_t>(((b * kSeq + t) * heads + h) * dim + d)] +=
            part[static_cast<std::size_t>(t * dim + d)];
      }
    }
  }

  std::map<std::string, Values> reference() const {
    const Problem p = resolved({.batch = kBatch,
                                .seq = kSeq,
                                .heads = kHeads,
                                .heads_kv = kHeadsKv,
                                .head_dim = kDim,
                                .head_dim_v = kDimV,
                                .mask = Mask::causal()});
    const KeyLists mask = compile_mask(p);
    const auto n = [](std::int64_t heads, std::int64_t dim) {
      return Values(static_cast<std::size_t>(kBatch * kSeq * heads * dim));
    };
    std::map<std::string, Values> r{{"out", n(kHeads, kDimV)},
                                    {"lse", n(kHeads, 1)},
                                    {"dq", n(kHeads, kDim)},
                                    {"dk", n(kHeadsKv, kDim)},
                                    {"dv", n(kHeadsKv, kDimV)}};
    std::vector<std::int64_t> rows(kSeq);
    std::iota(rows.begin(), rows.end(), 0);
    for (std::int64_t b = 0; b < kBatch; ++b) {
      for (std::int64_t h = 0; h < kHeads; ++h) {
        const std::int64_t kv = h / (kHeads / kHeadsKv);
        const Values q = head(inputs_.at("q"), b, h, kHeads, kDim);
        const Values k = head(inputs_.at("k"), b, kv, kHeadsKv, kDim);
        const Values v = head(inputs_.at("v"), b, kv, kHeadsKv, kDimV);
        const Values dout = head(inputs_.at("dout"), b, h, kHeads, kDimV);
        const ReferenceHead one{.seq = kSeq,
                                .seq_kv = kSeq,
                                .head_dim = kDim,
                                .head_dim_v = kDimV,
                                .q = q.data(),
                                .k = k.data(),
                                .v = v.data(),
                                .dout = dout.data(),
                                .mask = &mask,
                                .softmax_scale = *p.softmax_scale};
        Values out(kSeq * kDimV), lse(kSeq), delta(kSeq), dq(kSeq * kDim), dk(kSeq * kDim),
            dv(kSeq * kDimV);
        reference_forward(one, rows, out.data(), lse.data());
        for (std::size_t i = 0; i < out.size(); ++i) delta[i / kDimV] += out[i] * dout[i];
        reference_backward_rows(one, rows, lse.data(), delta.data(), dq.data());
        reference_backward_keys(one, rows, lse.data(), delta.data(), dk.data(), dv.data());
        put(r["out"], out, b, h, kHeads, kDimV);
        put(r["dq"], dq, b, h, kHeads, kDim);
        put(r["dk"], dk, b, kv, kHeadsKv, kDim);
        put(r["dv"], dv, b, kv, kHeadsKv, kDimV);
        std::copy(lse.begin(), lse.end(), r["lse"].begin() + (b * kHeads + h) * kSeq);
      }
    }
    return r;
  }

  void check(const AttendCase& c) {
    case_ = c;
    SCOPED_TRACE(c.name);
    write_inputs();
    ASSERT_EQ(run(), 0);
    const std::map<std::string, std::vector<std::int64_t>> shapes{
        {"out", {kBatch, kSeq, kHeads, kDimV}},
        {"lse", {kBatch, kHeads, kSeq}},
        {"dq", {kBatch, kSeq, kHeads, kDim}},
        {"dk", {kBatch, kSeq, kHeadsKv, kDim}},
        {"dv", {kBatch, kSeq, kHeadsKv, kDimV}}};
    for (const auto& [name, expected] : reference()) {
      const Values got = read(name.c_str(), shapes.at(name));
      double error = 0;
      double scale = 0;
      for (std::size_t e = 0; e < expected.size(); ++e) {
        error = std::max(error, std::abs(got.at(e) - expected[e]));
        scale = std::max(scale, std::abs(expected[e]));
      }
      EXPECT_LE(error / scale, c.bound) << name;
    }
    for (const auto& entry : std::filesystem::directory_iterator(folder())) {
      EXPECT_NE(entry.path().extension(), ".part");
    }
  }

  AttendCase case_{};
  std::map<std::string, Values> inputs_;
};

TEST_F(Attend, OnThreads) {
  check({"f32 npy zigzag", DType::f32, false, "", "--transport local --world 3", 2e-6});
}

TEST_F(Attend, OnThreadsStripedHalf) {
  check({"f16 npy striped", DType::f16, false, "", "--transport local --world 4 --layout striped",
         4e-3});
}

TEST_F(Attend, OnOneRankInOneFile) { check({"bf16 safetensors", DType::bf16, true, "", "", 3e-2}); }

TEST_F(Attend, UnderMpirun) {
  const std::string mpirun = ANNULUS_MPIRUN;
  if (mpirun.empty()) GTEST_SKIP() << "MPI is not built";
  const std::string launcher = mpirun + " -np 3 --bind-to none";
  check({"bf16 safetensors balanced", DType::bf16, true, launcher.c_str(), "--layout balanced",
         3e-2});
}

}  // namespace
}  // namespace annulus::launch::test
