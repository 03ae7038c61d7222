#pragma once

#include "attention/kernels/sm90/maps.h"
#include "attention/kernels/sm90/setup.h"

#include <cstddef>

namespace annulus::attn::sm90 {

/// The maps of all sources, by encode(shape, dtype). What no segment names has another's map, if
/// any: it is not used.
template <typename Params, typename Encode>
void make_key_maps(const Params& p, KeyMaps (&maps)[kMostSources], Encode&& encode) {
  bool first = true;
  each_key_source(p, [&](std::size_t i, const KeySource& source) {
    maps[i] = {encode(key_shape(source, p.geometry), source.k.dtype),
               encode(value_shape(source, p.geometry), source.v.dtype)};
    if (first) maps[0] = maps[i];  // every block asks for it ahead
    first = false;
  });
}

}  // namespace annulus::attn::sm90
