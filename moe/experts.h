#pragma once

#include "moe/kernels/dispatch.h"

#include <annulus/moe_experts.h>

#include <cstdint>
#include <span>
#include <vector>

namespace annulus::moe {

struct ExpertShape {
  Activation activation = Activation::swiglu;
  DType dtype = DType::f32;
  std::int64_t hidden = 0;
  std::int64_t ffn = 0;

  std::int64_t between() const { return hidden_width(activation, ffn); }
};

/// Throws InvalidArgument, naming `what`, unless weights (or gradients) are those of `experts`.
void require_weights(const ExpertShape& shape, std::int64_t experts, const ExpertWeights& weights,
                     const char* what);
void require_gradients(const ExpertShape& shape, std::int64_t experts,
                       const ExpertGradients& gradients, const char* what);

/// Rows of one expert, neighbours.
struct ExpertRows {
  std::int64_t expert = 0;
  std::int64_t first = 0;
  std::int64_t rows = 0;
};

/// Rows of dtype by expert, compact unless a stride (in elements) says otherwise.
struct RowBuffers {
  const void* x = nullptr;         ///< [rows][hidden]
  std::int64_t x_stride = 0;       ///< 0: hidden
  void* between = nullptr;         ///< [rows][between]: before the activation; kept for backward
  void* activated = nullptr;       ///< [rows][ffn]
  const float* weights = nullptr;  ///< [rows]; null: all 1
  void* y = nullptr;               ///< [rows][hidden]
  DType y_dtype = DType::f32;
};

struct RowGradients {
  const void* dy = nullptr;    ///< [rows][hidden]
  std::int64_t dy_stride = 0;  ///< 0: hidden
  void* dactivated = nullptr;  ///< [rows][ffn], scratch
  void* dx = nullptr;          ///< [rows][hidden]
  DType dx_dtype = DType::f32;
  float* dweights = nullptr;  ///< [rows]; may be null
};

/// The MLPs of some experts over their rows. The weight of a row multiplies its activation, before
/// the second product, so that y needs no keeping for the gradient of the weight.
class Experts {
 public:
  Experts(const Kernel& kernel, const ExpertShape& shape) : kernel_(&kernel), shape_(shape) {}

  const ExpertShape& shape() const { return shape_; }

  /// y = weight * expert(x). Experts without rows cost nothing and write nothing.
  void forward(const ExpertWeights& weights, std::span<const ExpertRows> rows,
               const RowBuffers& buffers, const LaunchContext& context);
  /// `between` alone, where it was not kept.
  void first_half(const ExpertWeights& weights, std::span<const ExpertRows> rows,
                  const RowBuffers& buffers, const LaunchContext& context);
  /// From x and `between`, which is overwritten. Weight gradients are added to, or written where
  /// `assign`, also by experts without rows: theirs are exact zeros.
  void backward(const ExpertWeights& weights, const ExpertGradients& gradients, bool assign,
                std::span<const ExpertRows> rows, const RowBuffers& buffers,
                const RowGradients& row_gradients, const LaunchContext& context);

 private:
  ActivateParams activation(std::span<const ExpertRows> rows, const RowBuffers& buffers) const;
  void multiply(const LaunchContext& context);

  const Kernel* kernel_;
  ExpertShape shape_;
  std::vector<Product> products_;  ///< of one call; kept for its memory
};

}  // namespace annulus::moe
