#include "tests/gpu/hopper_variants.h"

#include "attention/kernels/sm90/launch.h"
#include "attention/kernels/sm90/setup.h"
#include "attention/kernels/sm90/variant.h"
#include "tests/support/hopper_backward_candidates.h"

#include <annulus/error.h>

namespace annulus::attn::sm90 {
#define ANNULUS_HOPPER_VARIANT(dtype, dim, dim_v) \
  void hopper_backward_##dtype##_##dim##_##dim_v(const BackwardLaunch&);
#include <hopper_backward_variants.inc>
#undef ANNULUS_HOPPER_VARIANT
}  // namespace annulus::attn::sm90

namespace annulus::testing {

namespace candidates {
#define ANNULUS_HOPPER_CANDIDATE(name, dim, checked) \
  void backward_##name##_##dim(const attn::sm90::BackwardLaunch&);
#include <hopper_backward_candidates.inc>
#undef ANNULUS_HOPPER_CANDIDATE
}  // namespace candidates

namespace {

template <attn::sm90::BackwardVariant kVariant>
void backward(const attn::BackwardParams& params, const attn::LaunchContext& context) {
  if (!attn::sm90::suits(params)) throw InvalidArgument("the launch would go to flash2");
  attn::sm90::launch_backward(kVariant, params, context);
}

attn::Kernel kernel_of(std::int64_t head_dim, decltype(attn::Kernel::backward) backward) {
  return {.name = "hopper",
          .backend = "cuda",
          .tile_q = 128,
          .tile_k = attn::sm90::backward_keys(head_dim),
          .refuses = attn::sm90::hopper_refuses,
          .workspace_bytes = attn::sm90::hopper_bytes,
          .forward = attn::sm90::hopper_forward,
          .backward = backward};
}

template <attn::sm90::BackwardVariant kVariant, int kDim>
void add_launched(Variants& to) {
  Variant v{.name = "default", .dim = kDim, .kernel = kernel_of(kDim, backward<kVariant>)};
  to.push_back(v);
  v.name = "uncleared";
  v.uncleared = true;
  to.push_back(v);
}

/// f16 has no candidates, nor have values of another head dim.
#define ANNULUS_ADD_bf16(dim, dim_v) \
  if constexpr (dim == dim_v)        \
    add_launched<attn::sm90::hopper_backward_bf16_##dim##_##dim_v, dim>(variants);
#define ANNULUS_ADD_f16(dim, dim_v)

}  // namespace

Variants hopper_backward_variants() {
  Variants variants;
#define ANNULUS_HOPPER_VARIANT(dtype, dim, dim_v) ANNULUS_ADD_##dtype(dim, dim_v)
#include <hopper_backward_variants.inc>
#undef ANNULUS_HOPPER_VARIANT
#define ANNULUS_HOPPER_CANDIDATE(candidate, head_dim, checked)                                 \
  variants.push_back(                                                                          \
      {.name = #candidate,                                                                     \
       .dim = head_dim,                                                                        \
       .kernel = kernel_of(head_dim, backward<candidates::backward_##candidate##_##head_dim>), \
       .right = checked,                                                                       \
       .traced = candidates::candidate.traced});
#include <hopper_backward_candidates.inc>
#undef ANNULUS_HOPPER_CANDIDATE
  return variants;
}

}  // namespace annulus::testing
