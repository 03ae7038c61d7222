// Compiled once for each instruction set by foreach_target.h.
#include "attention/kernels/cpu/targets.h"

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
