#include "tests/moe_layer/run_layer.h"

#include "runtime/base/dtype.h"

#include <annulus/collective.h>
#include <annulus/device_memory.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <span>

namespace annulus::testing {
namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// [rows][columns] with gaps after each row, NaN all over; on a GPU once put_on() moved it there.
class Rows {
 public:
  Rows(DType dtype, std::int64_t rows, std::int64_t columns)
      : rows_(rows),
        columns_(columns),
        bytes_(at(rows * (columns + 3) * size_of(dtype) + 8), std::byte{0xff}) {
    view_ = TensorView(bytes_.data(), dtype, {rows, columns});
    view_.strides[0] = columns + 3;
  }
  TensorView view() const {
    TensorView v = view_;
    if (on_device_.data() != nullptr) v.data = on_device_.data();
    return v;
  }
  void put_on(int device) {
    on_device_ = DeviceBytes(static_cast<std::int64_t>(bytes_.size()), device);
    on_device_.upload(bytes_);
  }
  /// What a GPU wrote.
  void fetch() {
    if (on_device_.data() != nullptr) on_device_.download(bytes_);
  }
  void fill(const double* from) {
    for (std::int64_t i = 0; i < rows_ * columns_; ++i) {
      store_f64(view_.data, view_.dtype, index(i), from[i]);
    }
  }
  Values values() const {
    Values out;
    for (std::int64_t i = 0; i < rows_ * columns_; ++i) {
      out.push_back(load_f64(view_.data, view_.dtype, index(i)));
    }
    return out;
  }
  void expect_gaps(const char* name) const {
    for (std::int64_t r = 0; r < rows_; ++r) {
      for (std::int64_t c = columns_; c < columns_ + 3; ++c) {
        ASSERT_TRUE(std::isnan(load_f64(view_.data, view_.dtype, r * (columns_ + 3) + c))) << name;
      }
    }
  }

 private:
  std::int64_t index(std::int64_t i) const { return i / columns_ * (columns_ + 3) + i % columns_; }
  std::int64_t rows_, columns_;
  std::vector<std::byte> bytes_;
  DeviceBytes on_device_;
  TensorView view_;  ///< of bytes_
};

/// [n][rows][columns], compact or with gaps after each row.
class Cube {
 public:
  Cube(DType dtype, std::int64_t n, std::int64_t rows, std::int64_t columns)
      : rows_(dtype, n * rows, columns) {
    view_ = TensorView(rows_.view().data, dtype, {n, rows, columns});
    view_.strides[1] = rows_.view().strides[0];
    view_.strides[0] = rows * view_.strides[1];
  }
  Rows& rows() { return rows_; }
  TensorView view() const {
    TensorView v = view_;
    v.data = rows_.view().data;
    return v;
  }

 private:
  Rows rows_;
  TensorView view_;
};

/// The three matrices of some experts.
struct Set {
  Set(DType dtype, std::int64_t n, std::int64_t hidden, std::int64_t ffn)
      : gate(dtype, n, ffn, hidden), up(dtype, n, ffn, hidden), down(dtype, n, hidden, ffn) {}
  void fill(const OracleExperts& from, std::int64_t first) {
    gate.rows().fill(from.gate.data() + first);
    up.rows().fill(from.up.data() + first);
    down.rows().fill(from.down.data() + first);
  }
  moe::ExpertWeights weights() const { return {gate.view(), up.view(), down.view()}; }
  moe::ExpertGradients gradients() const { return {gate.view(), up.view(), down.view()}; }
  Cube gate, up, down;
};

/// The parts of all ranks one after another, each of its own length.
Values gather(Mesh& mesh, const Values& mine) {
  std::vector<std::int64_t> sizes(at(mesh.world()));
  const auto size = static_cast<std::int64_t>(mine.size());
  all_gather(mesh, std::as_bytes(std::span(&size, 1)), std::as_writable_bytes(std::span(sizes)),
             "sizes");
  const std::int64_t most = std::max<std::int64_t>(1, std::ranges::max(sizes));
  Values padded = mine;
  padded.resize(at(most));
  Values parts(at(most * mesh.world()));
  all_gather(mesh, std::as_bytes(std::span(padded)), std::as_writable_bytes(std::span(parts)),
             "values");
  Values all;
  for (std::int64_t r = 0; r < mesh.world(); ++r) {
    all.insert(all.end(), parts.begin() + r * most, parts.begin() + r * most + sizes[at(r)]);
  }
  return all;
}

/// Parts of `degree` ranks joined, and summed over the groups of ranks.
Values join(Mesh& mesh, const Values& mine, int degree) {
  const Values all = gather(mesh, mine);
  Values sum(mine.size() * at(degree));
  for (std::size_t i = 0; i < all.size(); ++i) sum[i % sum.size()] += all[i];
  return sum;
}

moe::Routing part_of(const moe::Routing& r, std::int64_t first, std::int64_t tokens) {
  moe::Routing part{.tokens = tokens, .k = r.k, .experts = r.experts};
  part.indices.assign(r.indices.begin() + first * r.k, r.indices.begin() + (first + tokens) * r.k);
  part.weights.assign(r.weights.begin() + first * r.k, r.weights.begin() + (first + tokens) * r.k);
  return part;
}

void fill_ones(Set& set) {
  for (Cube* cube : {&set.gate, &set.up, &set.down}) {
    const Values ones(at(cube->view().elements()), 1.0);
    cube->rows().fill(ones.data());
  }
}

OracleExperts joined(Mesh& mesh, Set& set, int degree) {
  return {join(mesh, set.gate.rows().values(), degree), join(mesh, set.up.rows().values(), degree),
          join(mesh, set.down.rows().values(), degree)};
}

}  // namespace

std::vector<std::int64_t> split_tokens(std::int64_t tokens, int world, bool empty_rank) {
  std::vector<std::int64_t> sizes(at(world));
  std::int64_t left = tokens;
  for (int r = 0; r + 1 < world; ++r) {
    const bool none = empty_rank && r == world / 2;
    sizes[at(r)] = none ? 0 : std::min(left, (left + world - r - 1) / (world - r) + r % 2);
    left -= sizes[at(r)];
  }
  sizes.back() = left;
  return sizes;
}

LayerResult truth_of_ranks(LayerCase& layer, int world, bool empty_rank, moe::Routing* kept) {
  const auto sizes = split_tokens(layer.tokens, world, empty_rank);
  if (layer.config.balance_over == moe::BalanceOver::rank) {
    layer.loss_set.clear();
    for (std::size_t r = 0; r < sizes.size(); ++r) {
      layer.loss_set.insert(layer.loss_set.end(), at(sizes[r]), static_cast<std::int32_t>(r));
    }
  }
  const moe::Routing routing = oracle_routing(layer);
  moe::Routing left = routing;
  if (layer.config.capacity.factor != 0.0) left = oracle_kept(layer, routing, sizes);
  if (kept != nullptr) *kept = left;
  return oracle_layer(layer, routing, &left);
}

LayerResult run_layer(Mesh& mesh, const LayerCase& l, const RunLayer& run, moe::LayerLoad* load,
                      moe::Routing* routing) {
  const moe::LayerConfig& c = l.config;
  const auto sizes = split_tokens(l.tokens, mesh.world(), run.empty_rank);
  const std::int64_t tokens = sizes[at(mesh.rank())];
  const std::int64_t first =
      std::accumulate(sizes.begin(), sizes.begin() + mesh.rank(), std::int64_t{0});
  moe::LayerOptions options = run.options;
  options.max_tokens = std::ranges::max(sizes);
  moe::Layer layer(mesh, c, options);
  const std::int64_t local = layer.local_experts();

  Rows x(c.dtype, tokens, c.hidden), y(c.dtype, tokens, c.hidden), dy(c.dtype, tokens, c.hidden),
      dx(c.dtype, tokens, c.hidden);
  x.fill(l.x.data() + first * c.hidden);
  dy.fill(l.dy.data() + first * c.hidden);
  Set experts(c.dtype, local, c.hidden, c.ffn), shared(c.dtype, 1, c.hidden, c.shared_ffn);
  experts.fill(l.experts, layer.expert_rank() * local * c.ffn * c.hidden);
  shared.fill(l.shared, 0);
  const std::int64_t routers = c.router ? c.experts : 0;
  Rows router(c.dtype, routers, c.hidden);
  router.fill(l.router.data());
  Set dexperts(DType::f32, local, c.hidden, c.ffn), dshared(DType::f32, 1, c.hidden, c.shared_ffn);
  Rows drouter(DType::f32, routers, c.hidden);
  if (!run.assign) {
    fill_ones(dexperts);
    fill_ones(dshared);
    drouter.fill(Values(at(routers * c.hidden), 1.0).data());
  }
  Rows dweights(DType::f32, 1, tokens * c.k), bias(DType::f32, 1, std::ssize(l.bias));
  bias.fill(Values(l.bias.begin(), l.bias.end()).data());
  const std::vector<Rows*> results{&y,
                                   &dx,
                                   &drouter,
                                   &dweights,
                                   &dexperts.gate.rows(),
                                   &dexperts.up.rows(),
                                   &dexperts.down.rows(),
                                   &dshared.gate.rows(),
                                   &dshared.up.rows(),
                                   &dshared.down.rows()};
  DeviceStream stream;
  if (layer.device() >= 0) {
    stream = DeviceStream(layer.device());
    for (Rows* rows : results) rows->put_on(layer.device());
    for (Rows* rows :
         {&x, &dy, &router, &bias, &experts.gate.rows(), &experts.up.rows(), &experts.down.rows(),
          &shared.gate.rows(), &shared.up.rows(), &shared.down.rows()}) {
      rows->put_on(layer.device());
    }
  }
  moe::Step step = layer.make_step(), between = layer.make_step();
  step.set_jitter(l.noise_seed, first);
  if (run.step_bytes != nullptr) *run.step_bytes = step.bytes();
  if (!l.loss_set.empty()) step.set_sequences(std::span(l.loss_set).subspan(at(first), at(tokens)));
  const moe::LayerWeights weights{
      .experts = experts.weights(),
      .shared = shared.weights(),
      .router = router.view(),
      .bias = {static_cast<const float*>(bias.view().data), l.bias.size()}};
  const moe::LayerGradients gradients{.experts = dexperts.gradients(),
                                      .shared = dshared.gradients(),
                                      .router = drouter.view(),
                                      .assign = run.assign};
  const std::span<float> dw(static_cast<float*>(dweights.view().data), at(tokens * c.k));
  // The other step's tokens are dy, its result goes to dx, which backward writes after it.
  const auto forward = [&](const Rows& in, const Rows& out, moe::Step& of) {
    if (c.router) return layer.forward(in.view(), weights, out.view(), of, stream.get());
    layer.forward(in.view(), weights, part_of(l.routing, first, tokens), out.view(), of,
                  stream.get());
  };
  for (int call = 0; call < run.calls; ++call) {
    forward(x, y, step);
    if (run.interleaved) forward(dy, dx, between);
    layer.backward(dy.view(), x.view(), weights, dx.view(), gradients, step, dw, stream.get());
  }
  layer.synchronize(stream.get());
  for (Rows* rows : results) rows->fetch();
  if (routing != nullptr) *routing = step.routing();
  for (const auto& [rows, name] : {std::pair<const Rows*, const char*>{&x, "x"},
                                   {&y, "y"},
                                   {&dx, "dx"},
                                   {&dexperts.gate.rows(), "gate"},
                                   {&dexperts.up.rows(), "up"},
                                   {&dexperts.down.rows(), "down"}}) {
    rows->expect_gaps(name);
  }
  if (load != nullptr) *load = step.load();
  const int degree = layer.expert_degree();
  return {.y = gather(mesh, y.values()),
          .dx = gather(mesh, dx.values()),
          .experts = joined(mesh, dexperts, degree),
          .shared = joined(mesh, dshared, 1),
          .router = join(mesh, drouter.values(), 1),
          .dweights = gather(mesh, dweights.values()),
          .balance_loss = join(mesh, {step.balance_loss()}, 1)[0],
          .z_loss = join(mesh, {step.z_loss()}, 1)[0]};
}

namespace {

/// Errors are measured against the largest value of a tensor, or 0.1 where all are small.
void near(const char* name, const Values& got, const Values& want, double bound) {
  ASSERT_EQ(got.size(), want.size()) << name;
  double scale = 0.1, error = 0;
  std::size_t worst = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    scale = std::max(scale, std::abs(want[i]));
    const double e = std::abs(got[i] - want[i]);
    if (!(e <= error)) {
      error = e;
      worst = i;
    }
  }
  EXPECT_LE(error, bound * scale) << name << "[" << worst << "] is " << got[worst] << ", should be "
                                  << want[worst];
}

void same(const char* name, const Values& a, const Values& b) {
  ASSERT_EQ(a.size(), b.size()) << name;
  for (std::size_t i = 0; i < a.size(); ++i) {
    ASSERT_EQ(std::memcmp(&a[i], &b[i], sizeof(double)), 0)
        << name << "[" << i << "]: " << a[i] << " and " << b[i];
  }
}

}  // namespace

void expect_near(const LayerCase& l, const LayerResult& got, const LayerResult& truth) {
  // bf16: what enters a product and what leaves it is rounded, 2^-9 each, up to four deep; f32:
  // sums.
  const double bound = l.config.dtype == DType::f32 ? 3e-6 : 2e-2;
  near("y", got.y, truth.y, bound);
  near("dx", got.dx, truth.dx, bound);
  const bool gated = l.config.activation == moe::Activation::swiglu;
  if (gated) near("dgate", got.experts.gate, truth.experts.gate, bound);
  near("dup", got.experts.up, truth.experts.up, bound);
  near("ddown", got.experts.down, truth.experts.down, bound);
  if (gated) near("shared dgate", got.shared.gate, truth.shared.gate, bound);
  near("shared dup", got.shared.up, truth.shared.up, bound);
  near("shared ddown", got.shared.down, truth.shared.down, bound);
  near("drouter", got.router, truth.router, 4 * bound);
  near("dweights", got.dweights, truth.dweights, bound);
  near("balance loss", {got.balance_loss}, {truth.balance_loss}, bound);
  near("z-loss", {got.z_loss}, {truth.z_loss}, bound);
}

void expect_same(const LayerResult& a, const LayerResult& b, bool gradients_of_weights) {
  same("y", a.y, b.y);
  same("dx", a.dx, b.dx);
  same("dweights", a.dweights, b.dweights);
  if (!gradients_of_weights) return;
  same("dgate", a.experts.gate, b.experts.gate);
  same("dup", a.experts.up, b.experts.up);
  same("ddown", a.experts.down, b.experts.down);
}

}  // namespace annulus::testing
