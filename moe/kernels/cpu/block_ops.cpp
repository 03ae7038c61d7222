// Compiled once for each instruction set by foreach_target.h.
#include "moe/kernels/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "moe/kernels/cpu/block_ops.cpp"
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>

#include "moe/kernels/cpu/block_ops-inl.h"
#include "moe/kernels/cpu/gate-inl.h"

HWY_BEFORE_NAMESPACE();
namespace annulus::moe::cpu {
namespace HWY_NAMESPACE {

inline BlockOps make_block_ops() {
  return {&multiply, &transpose, &widen, &narrow, &gate, &gate_backward};
}

}  // namespace HWY_NAMESPACE
}  // namespace annulus::moe::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace annulus::moe::cpu {

HWY_EXPORT(make_block_ops);

BlockOps block_ops() { return HWY_DYNAMIC_DISPATCH(make_block_ops)(); }

}  // namespace annulus::moe::cpu
#endif
