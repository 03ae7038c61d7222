#pragma once

#include <annulus/tensor.h>

#include <cstdint>

namespace annulus::moe {

/// What stands between the matrices of an expert.
enum class Activation : std::uint8_t {
  swiglu,  ///< silu(x gate^T) * (x up^T), silu(v) = v / (1 + exp(-v)) (Shazeer 2020)
  gelu,    ///< v Phi(v) of v = x up^T, the exact form (Hendrycks and Gimpel 2016)
};

/// Weights of some experts: expert(x) = activation(x) down^T. Rows may be strided; the last stride
/// is 1. Hugging Face's w1, w3, w2 of Mixtral are gate, up, down.
struct ExpertWeights {
  ConstTensorView gate;  ///< [experts, ffn, hidden]; swiglu only
  ConstTensorView up;    ///< [experts, ffn, hidden]
  ConstTensorView down;  ///< [experts, hidden, ffn]
};

/// The trainer's main gradients of the same weights, f32 of the same shapes.
struct ExpertGradients {
  TensorView gate;
  TensorView up;
  TensorView down;
};

}  // namespace annulus::moe
