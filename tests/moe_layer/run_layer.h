#pragma once

#include "tests/moe_layer/layer_oracle.h"

#include <annulus/mesh.h>
#include <annulus/moe_layer.h>

#include <cstdint>
#include <vector>

namespace annulus::testing {

struct RunLayer {
  moe::LayerOptions options{};
  int calls = 1;             ///< forward and backward so often; gradients are those of the last
  bool assign = true;        ///< else the gradients begin with 1
  bool empty_rank = false;   ///< a rank without tokens
  bool interleaved = false;  ///< another forward, of another step, before each backward
  std::int64_t* step_bytes = nullptr;  ///< of this rank's step; may be null
};

/// How many tokens each of `world` ranks holds: neighbours in the order of the case, uneven.
std::vector<std::int64_t> split_tokens(std::int64_t tokens, int world, bool empty_rank);

/// The truth where tokens are split so: each rank has its own capacity, and, with
/// BalanceOver::rank, its own loss (layer.loss_set is set). `kept`: what capacity left.
LayerResult truth_of_ranks(LayerCase& layer, int world, bool empty_rank,
                           moe::Routing* kept = nullptr);

/// Runs the layer on the mesh with each rank's part. Results hold every token and expert, on every
/// rank; expert gradients are summed over groups, shared and router gradients over ranks. Expects
/// that nothing beside the results was written, and that x gaps (NaN) were not read. With back end
/// cuda tensors are on the layer's GPU. `routing`: of this rank, as it was used.
LayerResult run_layer(Mesh& mesh, const LayerCase& layer, const RunLayer& run,
                      moe::LayerLoad* load = nullptr, moe::Routing* routing = nullptr);

/// Each result within what rounding may do to it.
void expect_near(const LayerCase& layer, const LayerResult& got, const LayerResult& truth);
/// Bit for bit.
void expect_same(const LayerResult& a, const LayerResult& b, bool gradients_of_weights);

}  // namespace annulus::testing
