// Compiled once for each instruction set by foreach_target.h. Scalable vectors cannot be array
// elements and are left out; so are the x86 steps
// between the baseline, AVX2 and AVX-512.
#define HWY_DISABLED_TARGETS \
  (HWY_RVV | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attention/kernels/cpu/tile_ops.cpp"
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>

#include "attention/kernels/cpu/tile_ops-inl.h"

#if HWY_ONCE
namespace annulus::attn::cpu {

HWY_EXPORT(make_tile_ops);

TileOps tile_ops() { return HWY_DYNAMIC_DISPATCH(make_tile_ops)(); }

}  // namespace annulus::attn::cpu
#endif
