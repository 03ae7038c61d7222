#include "moe/experts.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>

namespace annulus::moe {
namespace {

template <typename Pointer>
void require(const BasicTensorView<Pointer>& view, DType dtype,
             const std::array<std::int64_t, 3>& shape, const char* what, const char* name) {
  const bool fits = view.rank == 3 && view.dtype == dtype &&
                    std::equal(shape.begin(), shape.end(), view.shape.begin()) &&
                    (shape[2] < 2 || view.strides[2] == 1) &&
                    (view.data != nullptr || view.elements() == 0);
  if (fits) return;
  throw InvalidArgument(fmt::format("{} {}: {} is not {}[{},{},{}] with a last stride of 1", what,
                                    name, describe(view), name_of(dtype), shape[0], shape[1],
                                    shape[2]));
}

template <typename Set>
void require_set(const ExpertShape& s, std::int64_t experts, const Set& set, DType dtype,
                 const char* what) {
  const std::array<std::int64_t, 3> in{experts, s.ffn, s.hidden};
  if (s.activation == Activation::swiglu) require(set.gate, dtype, in, what, "gate");
  require(set.up, dtype, in, what, "up");
  require(set.down, dtype, {experts, s.hidden, s.ffn}, what, "down");
}

/// Compact rows from row `first`.
Operand rows_of(const void* data, DType dtype, std::int64_t first, std::int64_t width,
                std::int64_t column = 0) {
  return {.data = static_cast<const std::byte*>(data) + (first * width + column) * size_of(dtype),
          .dtype = dtype,
          .row_stride = width,
          .column_stride = 1};
}

Operand x_of(const RowBuffers& b, const ExpertShape& s, std::int64_t first) {
  return rows_of(b.x, s.dtype, first, b.x_stride != 0 ? b.x_stride : s.hidden);
}

Operand dy_of(const RowGradients& g, const ExpertShape& s, std::int64_t first) {
  return rows_of(g.dy, s.dtype, first, g.dy_stride != 0 ? g.dy_stride : s.hidden);
}

Result result_rows(void* data, DType dtype, std::int64_t first, std::int64_t width,
                   std::int64_t column = 0) {
  return {.data = static_cast<std::byte*>(data) + (first * width + column) * size_of(dtype),
          .dtype = dtype,
          .row_stride = width};
}

Operand turned(Operand o) {
  std::swap(o.row_stride, o.column_stride);
  return o;
}

/// The matrix of one expert as it lies: [out][in].
Operand matrix(const ConstTensorView& view, std::int64_t expert) {
  return {.data = static_cast<const std::byte*>(view.data) +
                  expert * view.strides[0] * size_of(view.dtype),
          .dtype = view.dtype,
          .row_stride = view.strides[1],
          .column_stride = 1};
}

Result matrix(const TensorView& view, std::int64_t expert) {
  return {
      .data = static_cast<std::byte*>(view.data) + expert * view.strides[0] * size_of(view.dtype),
      .dtype = view.dtype,
      .row_stride = view.strides[1]};
}

}  // namespace

void require_weights(const ExpertShape& shape, std::int64_t experts, const ExpertWeights& weights,
                     const char* what) {
  require_set(shape, experts, weights, shape.dtype, what);
}

void require_gradients(const ExpertShape& shape, std::int64_t experts,
                       const ExpertGradients& gradients, const char* what) {
  require_set(shape, experts, gradients, DType::f32, what);
}

void Experts::multiply(const LaunchContext& context) {
  kernel_->multiply(products_, context);
  products_.clear();
}

ActivateParams Experts::activation(std::span<const ExpertRows> rows, const RowBuffers& b) const {
  std::int64_t end = 0;
  for (const ExpertRows& r : rows) end = std::max(end, r.first + r.rows);
  return {.activation = shape_.activation,
          .dtype = shape_.dtype,
          .rows = end,
          .ffn = shape_.ffn,
          .hidden = b.between,
          .weights = b.weights,
          .activated = b.activated};
}

void Experts::first_half(const ExpertWeights& weights, std::span<const ExpertRows> rows,
                         const RowBuffers& b, const LaunchContext& context) {
  const auto [activation, dtype, hidden, ffn] = shape_;
  const auto add = [&](const ConstTensorView& view, const ExpertRows& r, std::int64_t column) {
    products_.push_back({.m = r.rows,
                         .n = ffn,
                         .k = hidden,
                         .a = x_of(b, shape_, r.first),
                         .b = turned(matrix(view, r.expert)),
                         .c = result_rows(b.between, dtype, r.first, shape_.between(), column)});
  };
  for (const ExpertRows& r : rows) {
    if (r.rows == 0) continue;
    if (activation == Activation::swiglu) add(weights.gate, r, 0);
    add(weights.up, r, shape_.between() - ffn);
  }
  multiply(context);
}

void Experts::forward(const ExpertWeights& weights, std::span<const ExpertRows> rows,
                      const RowBuffers& b, const LaunchContext& context) {
  const auto [activation_, dtype, hidden, ffn] = shape_;
  first_half(weights, rows, b, context);
  kernel_->activate(activation(rows, b), context);
  for (const ExpertRows& r : rows) {
    if (r.rows == 0) continue;
    products_.push_back({.m = r.rows,
                         .n = hidden,
                         .k = ffn,
                         .a = rows_of(b.activated, dtype, r.first, ffn),
                         .b = turned(matrix(weights.down, r.expert)),
                         .c = result_rows(b.y, b.y_dtype, r.first, hidden)});
  }
  multiply(context);
}

void Experts::backward(const ExpertWeights& weights, const ExpertGradients& gradients, bool assign,
                       std::span<const ExpertRows> rows, const RowBuffers& b, const RowGradients& g,
                       const LaunchContext& context) {
  const auto [activation_, dtype, hidden, ffn] = shape_;
  const std::int64_t between = shape_.between();
  const bool gated = activation_ == Activation::swiglu;
  for (const ExpertRows& r : rows) {
    if (r.rows == 0) continue;
    products_.push_back({.m = r.rows,
                         .n = ffn,
                         .k = hidden,
                         .a = dy_of(g, shape_, r.first),
                         .b = matrix(weights.down, r.expert),
                         .c = result_rows(g.dactivated, dtype, r.first, ffn)});
  }
  multiply(context);
  // A row of the activation is read before it is written, so d(between) takes the place of between.
  ActivateParams params = activation(rows, b);
  params.dactivated = g.dactivated;
  params.dhidden = b.between;
  params.dweights = g.dweights;
  kernel_->activate_backward(params, context);
  // dw[out][in] += sum over rows of d(out) * in
  const auto weigh = [&](const TensorView& view, const ExpertRows& r, std::int64_t out,
                         std::int64_t in, const Operand& d_out, const Operand& input) {
    if (r.rows == 0 && !assign) return;
    products_.push_back({.m = out,
                         .n = in,
                         .k = r.rows,
                         .a = turned(d_out),
                         .b = input,
                         .c = matrix(view, r.expert),
                         .add = !assign});
  };
  for (const ExpertRows& r : rows) {
    const Operand x = x_of(b, shape_, r.first);
    const Operand d_gate = rows_of(b.between, dtype, r.first, between);
    const Operand d_up = rows_of(b.between, dtype, r.first, between, between - ffn);
    weigh(gradients.down, r, hidden, ffn, dy_of(g, shape_, r.first),
          rows_of(b.activated, dtype, r.first, ffn));
    if (gated) weigh(gradients.gate, r, ffn, hidden, d_gate, x);
    weigh(gradients.up, r, ffn, hidden, d_up, x);
    if (r.rows == 0) continue;
    Product dx{.m = r.rows,
               .n = hidden,
               .k = ffn,
               .a = d_up,
               .b = matrix(weights.up, r.expert),
               .c = result_rows(g.dx, g.dx_dtype, r.first, hidden)};
    if (gated) {
      dx.k_more = ffn;
      dx.a_more = d_gate;
      dx.b_more = matrix(weights.gate, r.expert);
    }
    products_.push_back(dx);
  }
  multiply(context);
}

}  // namespace annulus::moe
