#pragma once

#include "tests/support/launch.h"

#include <cstdint>
#include <vector>

// Problems and launches that both passes of the emulated kernels are tested with.
namespace annulus::testing {

inline constexpr TileGrid kGrid{128, 128};

/// Causal, two query heads of one key/value head.
OracleProblem problem_of(std::int64_t seq, std::int64_t dim = 128, DType dtype = DType::bf16);

/// Window, documents, prefix; and rows of which some see nothing, others two intervals.
std::vector<std::vector<Mask::Term>> masks_of_300();

/// Also the tiles that the mask empties.
TestLaunch every_tile(const OracleProblem& problem, const TileGrid& grid = kGrid);

/// Full tiles of one query tile of different heights, and of different widths.
TestLaunch uneven_tiles(std::int64_t dim);

/// Keys [0, 130) and [200, 299): what lies between them is NaN. `dim_v`: 0 is dim.
TestLaunch with_nan_between(std::int64_t dim, std::int64_t dim_v = 0, const TileGrid& grid = kGrid);

/// 200 query rows, of which [90, 100) see nothing and are of no tile.
TestLaunch with_rows_between(std::int64_t dim, std::int64_t dim_v, std::int64_t tile_keys);

}  // namespace annulus::testing
