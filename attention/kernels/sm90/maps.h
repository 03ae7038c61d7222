#pragma once

#include <cuda.h>

// The tensor maps of a launch, a parameter of the kernel.
namespace annulus::attn::sm90 {

struct Maps {
  CUtensorMap k, v;
};

struct BackwardMaps {
  CUtensorMap q, k, v, dout;
  CUtensorMap dq;  ///< of boxes to be added
};

}  // namespace annulus::attn::sm90
