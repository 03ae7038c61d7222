#pragma once

#include <annulus/layout.h>
#include <annulus/problem.h>

#include <cstdint>
#include <string>
#include <vector>

namespace annulus::launch {

/// What a mask looks like and who owns it.
struct MaskPicture {
  Problem problem;  ///< resolved
  Sharding sharding;
  std::string layout;
  std::int64_t tile = 128;                  ///< of the figures; the picture may take a multiple
  std::vector<std::int64_t> rank_pairs;     ///< unmasked pairs by owner of the query
  std::vector<std::string> labels;          ///< of the tokens, max(seq, seq_kv) of them; or none
  std::vector<std::int64_t> document_ends;  ///< ascending; empty without documents
};

/// Tokens of a cell of the picture: 1 below 2000 tokens, else a multiple of `tile` that leaves at
/// most 300 cells a side.
std::int64_t cell_of(const MaskPicture& picture);

std::string draw_mask(const MaskPicture& picture);

}  // namespace annulus::launch
