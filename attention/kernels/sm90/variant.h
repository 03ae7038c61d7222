#pragma once

#include "attention/kernels/cuda/geometry.h"
#include "attention/kernels/sm90/schedule.h"

// What hopper.cpp and the variants, one .cu each, say to each other.
namespace annulus::attn::sm90 {

struct Maps;

struct Launch {
  const ForwardParams& params;
  cuda::Geometry geometry;
  const Maps& maps;
  Schedule schedule;
  int blocks;
  void* stream;
};
using Variant = void (*)(const Launch&);

/// Query tiles to the workspace in the order in which they are drawn, and the counter to 0.
void make_schedule(const cuda::Geometry& geometry, const Schedule& schedule, void* stream);

}  // namespace annulus::attn::sm90
