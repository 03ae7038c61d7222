#include "tests/gpu/hopper_variants.h"

#include "attention/kernels/sm90/launch.h"
#include "attention/kernels/sm90/setup.h"
#include "attention/kernels/sm90/variant.h"
#include "tests/support/hopper_candidates.h"

#include <annulus/error.h>

namespace annulus::attn::sm90 {
#define ANNULUS_HOPPER_VARIANT(dtype, dim, dim_v) \
  void hopper_forward_##dtype##_##dim##_##dim_v(const Launch&);
#include <hopper_forward_variants.inc>
#undef ANNULUS_HOPPER_VARIANT
}  // namespace annulus::attn::sm90

namespace annulus::testing {

namespace candidates {
#define ANNULUS_HOPPER_CANDIDATE(name, dim, checked) \
  void launch_##name##_##dim(const attn::sm90::Launch&);
#include <hopper_candidates.inc>
#undef ANNULUS_HOPPER_CANDIDATE
}  // namespace candidates

namespace {

using attn::sm90::Prelude;
using attn::sm90::Tuning;

template <attn::sm90::Variant kVariant, int kTileKeys, Prelude kPrelude>
void forward(const attn::ForwardParams& params, const attn::LaunchContext& context) {
  if (!attn::sm90::suits(params)) throw InvalidArgument("the launch would go to flash2");
  attn::sm90::launch_forward({kVariant, kTileKeys, kPrelude}, params, context);
}

attn::Kernel kernel_of(const Tuning& tuning, decltype(attn::Kernel::forward) forward) {
  return {.name = "hopper",
          .backend = "cuda",
          .tile_q = attn::sm90::tile_rows_of(tuning),
          .tile_k = tuning.tile_keys,
          .refuses = attn::sm90::hopper_refuses,
          .workspace_bytes = attn::sm90::hopper_bytes,
          .forward = forward};
}

template <attn::sm90::Variant kVariant, int kDim>
void add_launched(Variants& to) {
  constexpr Tuning kTuning = attn::sm90::default_tuning(kDim, kDim, false);
  constexpr int kKeys = kTuning.tile_keys;
  to.push_back(
      {"default", kDim, kernel_of(kTuning, forward<kVariant, kKeys, Prelude::overlapped>)});
  to.push_back({"separate", kDim, kernel_of(kTuning, forward<kVariant, kKeys, Prelude::separate>)});
}

/// f16 has no candidates, nor have values of another head dim.
#define ANNULUS_ADD_bf16(dim, dim_v) \
  if constexpr (dim == dim_v)        \
    add_launched<attn::sm90::hopper_forward_bf16_##dim##_##dim_v, dim>(variants);
#define ANNULUS_ADD_f16(dim, dim_v)

}  // namespace

Variants hopper_variants() {
  Variants variants;
#define ANNULUS_HOPPER_VARIANT(dtype, dim, dim_v) ANNULUS_ADD_##dtype(dim, dim_v)
#include <hopper_forward_variants.inc>
#undef ANNULUS_HOPPER_VARIANT
#define ANNULUS_HOPPER_CANDIDATE(candidate, head_dim, checked)                                    \
  variants.push_back(                                                                             \
      {.name = #candidate,                                                                        \
       .dim = head_dim,                                                                           \
       .kernel =                                                                                  \
           kernel_of(candidates::candidate##_##head_dim,                                          \
                     forward<candidates::launch_##candidate##_##head_dim,                         \
                             candidates::candidate##_##head_dim.tile_keys, Prelude::overlapped>), \
       .right = checked,                                                                          \
       .traced = candidates::candidate##_##head_dim.traced});
#include <hopper_candidates.inc>
#undef ANNULUS_HOPPER_CANDIDATE
  return variants;
}

}  // namespace annulus::testing
