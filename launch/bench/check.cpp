#include "launch/bench/check.h"

#include "launch/bench/sample.h"

#include <annulus/collective.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace annulus::launch {
namespace {

constexpr std::array<const char*, 5> kNames{"out", "lse", "dq", "dk", "dv"};
enum Output : std::size_t { kOut, kLse, kDq, kDk, kDv, kOutputs };

/// Inputs are standard normal, so results are of order 1. A tensor that is zero but for rounding
/// (dq of a row that sees one key) is measured against this instead of against nothing.
constexpr double kLeastScale = 0.1;

struct Deviation {
  double error = 0;
  double scale = kLeastScale;
  double elements = 0;

  void add(double x, double ref) {
    ++elements;
    if (x == ref && std::isinf(ref)) return;  // a row that sees nothing: lse -inf on both sides
    const double difference = std::abs(x - ref);
    error = std::isnan(difference) ? std::numeric_limits<double>::infinity()
                                   : std::max(error, difference);
    if (std::isfinite(ref)) scale = std::max(scale, std::abs(ref));
  }
};

class Checker {
 public:
  Checker(Mesh& mesh, const CheckRequest& request, const Sharding& sharding, const Shards& shards)
      : mesh_(mesh),
        request_(request),
        p_(request.problem),
        sharding_(sharding),
        shards_(shards),
        generator_(request.seed, p_.dtype),
        mask_(compile_mask(p_)),
        positions_(sharding.positions(mesh.rank())),
        positions_kv_(sharding.positions_kv(mesh.rank())),
        rows_(choose_rows(request, mask_, positions_)) {
    // With hardly any keys dP - delta cancels, so the size of what cancels counts, not the rest.
    const double cancelled = *p_.softmax_scale * std::sqrt(static_cast<double>(*p_.head_dim_v) /
                                                           static_cast<double>(*p_.seq_kv));
    for (const Output o : {kDq, kDk}) deviations_[o].scale = std::max(kLeastScale, cancelled);
    if (request.backward) keys_ = choose_keys(request, mask_, positions_kv_);
    for (const std::int64_t i : rows_) row_positions_.push_back(positions_[index(i)]);
    for (const std::int64_t i : keys_) key_positions_.push_back(positions_kv_[index(i)]);
  }

  std::array<Deviation, kOutputs> run() {
    for (const HeadGroup& group : choose_groups(request_)) check_group(group);
    return deviations_;
  }

 private:
  static std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

  void check_group(const HeadGroup& group) {
    const std::int64_t dim_v = *p_.head_dim_v;
    const std::vector<double> k =
        generator_.head(Input::k, group.batch, *p_.seq_kv, group.head_kv, p_.head_dim);
    const std::vector<double> v =
        generator_.head(Input::v, group.batch, *p_.seq_kv, group.head_kv, dim_v);
    std::vector<double> dk(keys_.size() * index(p_.head_dim));
    std::vector<double> dv(keys_.size() * index(dim_v));
    const std::int64_t readers = p_.heads / *p_.heads_kv;
    for (std::int64_t h = group.head_kv * readers; h < (group.head_kv + 1) * readers; ++h) {
      check_head(group.batch, h, k, v, dk, dv);
    }
    if (!request_.backward) return;
    compare(kDk, shards_.dk, group.batch, keys_, group.head_kv, p_.head_dim, dk);
    compare(kDv, shards_.dv, group.batch, keys_, group.head_kv, dim_v, dv);
  }

  void check_head(std::int64_t batch, std::int64_t head, const std::vector<double>& k,
                  const std::vector<double>& v, std::vector<double>& dk, std::vector<double>& dv) {
    const std::int64_t dim_v = *p_.head_dim_v;
    const std::vector<double> q = generator_.head(Input::q, batch, p_.seq, head, p_.head_dim);
    std::vector<double> dout;
    if (request_.backward) dout = generator_.head(Input::dout, batch, p_.seq, head, dim_v);
    const ReferenceHead reference{.seq = p_.seq,
                                  .seq_kv = *p_.seq_kv,
                                  .head_dim = p_.head_dim,
                                  .head_dim_v = dim_v,
                                  .q = q.data(),
                                  .k = k.data(),
                                  .v = v.data(),
                                  .dout = dout.data(),
                                  .mask = &mask_,
                                  .softmax_scale = *p_.softmax_scale,
                                  .softcap = p_.softcap};
    std::vector<double> out(rows_.size() * index(dim_v));
    std::vector<double> lse(rows_.size());
    reference_forward(reference, row_positions_, out.data(), lse.data());
    compare(kOut, shards_.out, batch, rows_, head, dim_v, out);
    for (std::size_t r = 0; r < rows_.size(); ++r) {
      deviations_[kLse].add(shards_.lse.at(batch, head, rows_[r]), lse[r]);
    }
    if (request_.backward) check_backward(reference, batch, head, out, lse, dk, dv);
  }

  void check_backward(const ReferenceHead& reference, std::int64_t batch, std::int64_t head,
                      const std::vector<double>& out, const std::vector<double>& lse,
                      std::vector<double>& dk, std::vector<double>& dv) {
    std::vector<double> delta(rows_.size());
    const auto dim_v = index(reference.head_dim_v);
    for (std::size_t r = 0; r < rows_.size(); ++r) {
      const double* dout = reference.dout + row_positions_[r] * reference.head_dim_v;
      for (std::size_t d = 0; d < dim_v; ++d) delta[r] += dout[d] * out[r * dim_v + d];
    }
    std::vector<double> dq(rows_.size() * index(p_.head_dim));
    reference_backward_rows(reference, row_positions_, lse.data(), delta.data(), dq.data());
    compare(kDq, shards_.dq, batch, rows_, head, p_.head_dim, dq);

    std::vector<double> all_lse;
    std::vector<double> all_delta;
    if (request_.sampled) {
      own_rows(reference, batch, head, all_lse, all_delta);
    } else {
      all_lse = lse;
      all_delta = delta;
    }
    all_lse = gather_rows(all_lse);
    all_delta = gather_rows(all_delta);
    reference_backward_keys(reference, key_positions_, all_lse.data(), all_delta.data(), dk.data(),
                            dv.data());
  }

  /// lse and delta of all local rows from what the run itself computed.
  void own_rows(const ReferenceHead& reference, std::int64_t batch, std::int64_t head,
                std::vector<double>& lse, std::vector<double>& delta) const {
    lse.assign(positions_.size(), 0.0);
    delta.assign(positions_.size(), 0.0);
    for (std::size_t r = 0; r < positions_.size(); ++r) {
      const auto row = static_cast<std::int64_t>(r);
      lse[r] = shards_.lse.at(batch, head, row);
      const double* dout = reference.dout + positions_[r] * reference.head_dim_v;
      for (std::int64_t d = 0; d < reference.head_dim_v; ++d) {
        delta[r] += dout[d] * shards_.out.at(batch, row, head, d);
      }
    }
  }

  /// The local rows of all ranks, in global order. Parts are padded to the longest shard.
  std::vector<double> gather_rows(std::vector<double> mine) {
    std::int64_t longest = 0;
    for (int r = 0; r < sharding_.world(); ++r) {
      longest = std::max(longest, sharding_.seq_local(r));
    }
    mine.resize(index(longest));
    std::vector<double> parts(index(longest) * index(sharding_.world()));
    all_gather(mesh_, std::as_bytes(std::span(mine)), std::as_writable_bytes(std::span(parts)),
               "bench: rows of the reference");
    std::vector<double> rows(index(p_.seq));
    for (int r = 0; r < sharding_.world(); ++r) {
      const double* part = parts.data() + longest * r;
      for (const std::int64_t position : sharding_.positions(r)) rows[index(position)] = *part++;
    }
    return rows;
  }

  void compare(Output output, const Tensor& tensor, std::int64_t batch,
               const std::vector<std::int64_t>& tokens, std::int64_t head, std::int64_t dims,
               const std::vector<double>& expected) {
    std::size_t e = 0;
    for (const std::int64_t token : tokens) {
      for (std::int64_t d = 0; d < dims; ++d) {
        deviations_[output].add(tensor.at(batch, token, head, d), expected[e++]);
      }
    }
  }

  Mesh& mesh_;
  const CheckRequest& request_;
  const Problem& p_;
  const Sharding& sharding_;
  const Shards& shards_;
  Generator generator_;
  KeyLists mask_;
  std::vector<std::int64_t> positions_, positions_kv_;  ///< of the local tokens
  std::vector<std::int64_t> rows_, keys_;               ///< local indices that are checked
  std::vector<std::int64_t> row_positions_, key_positions_;
  std::array<Deviation, kOutputs> deviations_{};
};

}  // namespace

CheckReport check(Mesh& mesh, const CheckRequest& request, const Sharding& sharding,
                  const Shards& shards) {
  using Deviations = std::array<Deviation, kOutputs>;
  const Deviations mine = Checker(mesh, request, sharding, shards).run();
  std::vector<Deviations> ranks(static_cast<std::size_t>(mesh.world()));
  all_gather(mesh, std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(ranks)),
             "bench: result of the check");
  CheckReport report{.lines = {}, .sampled = request.sampled};
  const std::int64_t terms = std::max(request.problem.seq, *request.problem.seq_kv);
  for (std::size_t o = 0; o < (request.backward ? kOutputs : std::size_t{kDq}); ++o) {
    Deviation worst;
    for (const Deviations& rank : ranks) {
      worst.error = std::max(worst.error, rank[o].error);
      worst.scale = std::max(worst.scale, rank[o].scale);
      worst.elements += rank[o].elements;
    }
    report.lines.push_back({.name = kNames[o],
                            .rel_err = worst.error / worst.scale,
                            .bound = bound_of(kNames[o], request.problem.dtype, terms),
                            .elements = static_cast<std::int64_t>(worst.elements)});
  }
  return report;
}

}  // namespace annulus::launch
