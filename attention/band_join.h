#pragma once

#include "attention/bands.h"

#include <vector>

namespace annulus::attn {

/// Appends a band to those of the rows before it, or lets the last one grow where the band goes on
/// with it. Bands with fixed keys come row by row, with no moving interval yet: which ones move is
/// found here.
void append_joined(const Band& band, std::vector<Band>& bands);

std::vector<Band> joined(const std::vector<Band>& bands);

}  // namespace annulus::attn
