#pragma once

#include "attention/kernels/sm90/wgmma.cuh"

#include <cstdint>

// moe/kernels/sm90/products.cuh for the host.
namespace annulus::moe::sm90 {

template <bool kAcross, int kCount>
inline void product(float (&d)[kCount], std::uint64_t a, std::uint64_t b, bool add) {
  attn::sm90::multiply_shared<false, kAcross>(d, a, b, add, attn::sm90::Bf16());
}

}  // namespace annulus::moe::sm90
