#pragma once

// Scalable vectors cannot be array elements and are left out; so are the x86 steps between the
// baseline, AVX2 and AVX-512. Include before hwy/highway.h.
#define HWY_DISABLED_TARGETS \
  (HWY_RVV | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
