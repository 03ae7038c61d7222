#include "launch/agree.h"
#include "launch/attend/move.h"
#include "launch/attend/shapes.h"
#include "launch/bench/measure.h"
#include "launch/bench/place.h"
#include "launch/bench/tensors.h"
#include "launch/command.h"
#include "launch/error.h"
#include "launch/io/tensor_output.h"
#include "launch/output.h"
#include "launch/options/grid.h"
#include "launch/ranks_request.h"
#include "launch/request/problem.h"

#include <annulus/collective.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <array>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace annulus::launch {
namespace {

using nlohmann::ordered_json;

/// Files, which only rank 0 opens.
struct Files {
  TensorReader q, k, v;
  std::optional<TensorReader> dout;
  std::unique_ptr<TensorOutputs> outputs;
  std::unique_ptr<OutputFile> json;
};

/// The outputs in the order in which they are written; backward's after forward's.
struct Outputs {
  enum Index : std::size_t { kOut, kLse, kDq, kDk, kDv };
  static constexpr std::array<const char*, 5> kNames{"out", "lse", "dq", "dk", "dv"};
};

/// Seconds of each part, as rank 0 sees them.
struct Times {
  double read_s = 0, forward_s = 0, backward_s = 0, write_s = 0;
};

/// Which keys must be there; found before any rank starts.
void check_keys(const Settings& settings) {
  for (const char* key : {"q", "k", "v", "out"}) settings.text(key);
  const bool backward = settings.has("dout");
  for (const char* key : {"dq", "dk", "dv"}) {
    if (backward) settings.text(key);
    if (!backward && settings.has(key)) settings.refuse(key, "needs dout");
  }
}

TensorPath tensor_path(const Settings& settings, const char* key) {
  return parse_tensor_path(settings.path(key), key, settings.where(key));
}

TensorReader open_reader(const Settings& settings, const char* key) {
  return {tensor_path(settings, key), settings.where(key)};
}

/// One rank of the run.
class AttendRank {
 public:
  AttendRank(const Settings& settings, Mesh& mesh) : asked_(settings), mesh_(mesh) {}

  int run() {
    require_same_settings(mesh_, asked_);
    settings_ = with_shape(asked_, agree_on_shape());
    problem_ = problem_of(settings_);
    refuse_fallback(settings_, problem_);
    open_outputs();
    const AttentionOptions options = attention_options_of(settings_);
    SessionOptions where{.max_problem = problem_,
                         .algorithm = options.algorithm,
                         .layout = options.layout,
                         .outer = options.outer,
                         .kernel = options.kernel,
                         .backward = backward(),
                         .threads = threads_of(settings_, mesh_.world())};
    place_session(settings_, where);
    Session session(mesh_, where);
    Attention attention(session, problem_, options);
    Shards shards = allocate(attention.layout());
    scatter_inputs(attention.layout(), shards);
    const Place place(mesh_, session, shards);
    compute(attention, place);
    gather_outputs(attention.layout(), shards);
    if (mesh_.rank() == 0) finish(attention);
    return kPassed;
  }

 private:
  bool backward() const { return asked_.has("dout"); }

  AttendShape agree_on_shape() {
    AttendShape shape;
    on_rank_zero(mesh_, [&] {
      files_.reset(new Files{.q = open_reader(asked_, "q"),
                             .k = open_reader(asked_, "k"),
                             .v = open_reader(asked_, "v"),
                             .dout = {},
                             .outputs = {},
                             .json = {}});
      AttendTensors tensors{
          .q = files_->q.tensor(), .k = files_->k.tensor(), .v = files_->v.tensor(), .dout = {}};
      if (backward()) {
        files_->dout.emplace(open_reader(asked_, "dout"));
        tensors.dout = files_->dout->tensor();
      }
      shape = attend_shape(asked_, tensors);
    });
    return gather_one(mesh_, shape).front();
  }

  std::vector<std::int64_t> full_shape(std::size_t output) const {
    const Problem& p = problem_;
    switch (output) {
      case Outputs::kOut:
        return {p.batch, p.seq, p.heads, *p.head_dim_v};
      case Outputs::kLse:
        return {p.batch, p.heads, p.seq};
      case Outputs::kDq:
        return {p.batch, p.seq, p.heads, p.head_dim};
      case Outputs::kDk:
        return {p.batch, *p.seq_kv, *p.heads_kv, p.head_dim};
      default:
        return {p.batch, *p.seq_kv, *p.heads_kv, *p.head_dim_v};
    }
  }

  bool wanted(std::size_t output) const {
    if (output == Outputs::kOut) return true;
    return output == Outputs::kLse ? asked_.has("lse") : backward();
  }

  void open_outputs() {
    on_rank_zero(mesh_, [&] {
      std::vector<OutputTensor> outputs;
      for (std::size_t i = 0; i < Outputs::kNames.size(); ++i) {
        if (!wanted(i)) continue;
        const char* key = Outputs::kNames[i];
        const TensorPath path = tensor_path(asked_, key);
        refuse_input(key, path);
        const DType dtype = i == Outputs::kLse ? DType::f32 : problem_.dtype;
        outputs.push_back({.path = path,
                           .where = asked_.where(key),
                           .tensor = {.dtype = dtype, .shape = full_shape(i)}});
      }
      files_->outputs = std::make_unique<TensorOutputs>(std::move(outputs));
      if (asked_.has("json")) {
        files_->json = std::make_unique<OutputFile>(asked_.path("json"), asked_.where("json"));
      }
    });
  }

  /// A .safetensors is replaced whole: inputs in it would be lost.
  void refuse_input(const char* key, const TensorPath& output) const {
    for (const char* input : {"q", "k", "v", "dout"}) {
      std::error_code missing;
      if (!asked_.has(input)) continue;
      const TensorPath path = tensor_path(asked_, input);
      if (!std::filesystem::equivalent(path.file, output.file, missing)) continue;
      asked_.refuse(key, fmt::format("is also the input {}; allowed: another file", input));
    }
  }

  Shards allocate(const Sharding& sharding) const {
    const Problem& p = problem_;
    const std::int64_t rows = sharding.seq_local(mesh_.rank());
    const std::int64_t keys = sharding.seq_kv_local(mesh_.rank());
    Shards s;
    s.q = Tensor(p.dtype, p.batch, rows, p.heads, p.head_dim);
    s.k = Tensor(p.dtype, p.batch, keys, *p.heads_kv, p.head_dim);
    s.v = Tensor(p.dtype, p.batch, keys, *p.heads_kv, *p.head_dim_v);
    s.out = Tensor(p.dtype, p.batch, rows, p.heads, *p.head_dim_v);
    s.lse = Tensor(DType::f32, p.batch, p.heads, rows);
    if (!backward()) return s;
    s.dout = Tensor(p.dtype, p.batch, rows, p.heads, *p.head_dim_v);
    s.dq = Tensor(p.dtype, p.batch, rows, p.heads, p.head_dim);
    s.dk = Tensor(p.dtype, p.batch, keys, *p.heads_kv, p.head_dim);
    s.dv = Tensor(p.dtype, p.batch, keys, *p.heads_kv, *p.head_dim_v);
    return s;
  }

  static std::span<std::byte> bytes_of(const Tensor& tensor) {
    const TensorView& view = tensor.view();
    return {static_cast<std::byte*>(view.data),
            static_cast<std::size_t>(view.elements() * size_of(view.dtype))};
  }

  Strips strips_of(const Tensor& tensor, bool keys) const {
    const TensorView& v = tensor.view();
    const std::int64_t tokens = keys ? *problem_.seq_kv : problem_.seq;
    if (v.rank == 3) return {v.shape[0] * v.shape[1], tokens, size_of(v.dtype)};
    return {v.shape[0], tokens, v.shape[2] * v.shape[3] * size_of(v.dtype)};
  }

  static std::vector<Shard> shards_of(const Sharding& sharding, bool keys) {
    std::vector<Shard> shards;
    for (int r = 0; r < sharding.world(); ++r) {
      shards.push_back(keys ? sharding.shard_kv(r) : sharding.shard(r));
    }
    return shards;
  }

  template <typename Work>
  static double timed(Work work) {
    const auto start = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }

  void scatter_inputs(const Sharding& sharding, const Shards& shards) {
    const auto one = [&](const Tensor& tensor, bool keys, const TensorReader* reader,
                         const char* what) {
      const auto read = [reader](std::int64_t begin, std::span<std::byte> into) {
        reader->read(begin, into);
      };
      scatter(mesh_, strips_of(tensor, keys), shards_of(sharding, keys), read, bytes_of(tensor),
              what);
    };
    times_.read_s = timed([&] {
      one(shards.q, false, files_ ? &files_->q : nullptr, "attend: q from rank 0");
      one(shards.k, true, files_ ? &files_->k : nullptr, "attend: k from rank 0");
      one(shards.v, true, files_ ? &files_->v : nullptr, "attend: v from rank 0");
      if (!backward()) return;
      one(shards.dout, false, files_ ? &*files_->dout : nullptr, "attend: dout from rank 0");
    });
  }

  void compute(Attention& attention, const Place& place) {
    times_.forward_s = place.timed(attention, Pass::forward);
    if (backward()) times_.backward_s = place.timed(attention, Pass::backward);
    place.download(attention);
  }

  void gather_outputs(const Sharding& sharding, const Shards& s) {
    const std::array<const Tensor*, 5> tensors{&s.out, &s.lse, &s.dq, &s.dk, &s.dv};
    times_.write_s = timed([&] {
      std::size_t index = 0;
      for (std::size_t i = 0; i < tensors.size(); ++i) {
        if (!wanted(i)) continue;
        const bool keys = i >= Outputs::kDk;
        const auto write = [&](std::int64_t begin, std::span<const std::byte> data) {
          files_->outputs->write(index, begin, data);
        };
        gather(mesh_, strips_of(*tensors[i], keys), shards_of(sharding, keys), write,
               bytes_of(*tensors[i]), "attend: results to rank 0");
        ++index;
      }
    });
  }

  ordered_json report(const Attention& attention) const {
    const std::string reason = attention.fallback_reason();
    ordered_json outputs = ordered_json::object();
    for (std::size_t i = 0; i < Outputs::kNames.size(); ++i) {
      if (wanted(i)) outputs[Outputs::kNames[i]] = asked_.path(Outputs::kNames[i]).string();
    }
    return {{"schema", "annulus.attend/1"},
            {"problem", ordered_json::parse(problem_json(problem_))},
            {"parallel",
             {{"world", mesh_.world()},
              {"algorithm", name_of(attention.algorithm())},
              {"layout", layout_of(settings_).name()},
              {"transport", mesh_.transport()},
              {"ulysses_degree", mesh_.shape().ulysses},
              {"sm_limit", settings_.integer("sm_limit")}}},
            {"kernel",
             {{"used", attention.kernel_used()},
              {"fallback_reason", reason.empty() ? ordered_json(nullptr) : ordered_json(reason)}}},
            {"timing",
             {{"read_s", times_.read_s},
              {"forward_s", times_.forward_s},
              {"backward_s", backward() ? ordered_json(times_.backward_s) : ordered_json(nullptr)},
              {"write_s", times_.write_s}}},
            {"outputs", outputs}};
  }

  void finish(const Attention& attention) {
    files_->outputs->commit();
    const bool to_screen = !files_->json || !files_->json->to_standard_output();
    if (!asked_.flag("quiet")) {
      const Problem& p = problem_;
      fmt::print(to_screen ? stdout : stderr,
                 "attend     [{},{},{},{}] {}, seq_kv {}, heads_kv {}, head_dim_v {}, mask {}\n"
                 "ranks      {}, {} layout, algorithm {}, transport {}, kernel {}\n"
                 "seconds    {:.3f} read, {:.3f} forward, {:.3f} backward, {:.3f} write\n",
                 p.batch, p.seq, p.heads, p.head_dim, name_of(p.dtype), *p.seq_kv, *p.heads_kv,
                 *p.head_dim_v, p.mask.name(), mesh_.world(), layout_of(settings_).name(),
                 name_of(attention.algorithm()), mesh_.transport(), attention.kernel_used(),
                 times_.read_s, times_.forward_s, times_.backward_s, times_.write_s);
      for (std::size_t i = 0; i < Outputs::kNames.size(); ++i) {
        if (!wanted(i)) continue;
        fmt::print(to_screen ? stdout : stderr, "{:<10} {}\n", Outputs::kNames[i],
                   asked_.path(Outputs::kNames[i]).string());
      }
    }
    if (files_->json) files_->json->commit(report(attention).dump() + "\n");
  }

  const Settings& asked_;
  Settings settings_;  ///< with the shape of the files
  Mesh& mesh_;
  Problem problem_;
  std::unique_ptr<Files> files_;  ///< rank 0 only
  Times times_;
};

}  // namespace

int run_attend(const Call& call) {
  const Settings& settings = call.settings;
  refuse_grid(settings, "attend");
  refuse_unbuilt_run(settings);
  refuse_typed_trace(settings);
  if (settings.integer("shrink") != 1) settings.refuse("shrink", "is not for tensors; allowed: 1");
  check_keys(settings);
  const RanksRequest ranks = ranks_request_of(settings, call.started);
  return run_ranks(ranks, [&](Mesh& mesh) { return AttendRank(settings, mesh).run(); });
}

}  // namespace annulus::launch
