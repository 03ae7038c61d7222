#pragma once

#include <cuda.h>

// The tensor maps of a launch, a parameter of the kernel.
namespace annulus::attn::sm90 {

/// Of one source of keys (KeySegment::source).
struct KeyMaps {
  CUtensorMap k, v;
};
/// Sources that a launch has maps for; one with more is served by flash2.
inline constexpr int kMostSources = 8;
/// Of a kernel, on drivers before 530.
inline constexpr int kMostParameterBytes = 4096;

struct Maps {
  KeyMaps keys[kMostSources];
};

struct BackwardMaps {
  CUtensorMap q, dout;
  CUtensorMap dq;  ///< of boxes to be added
  KeyMaps keys[kMostSources];
};

}  // namespace annulus::attn::sm90
