#include "runtime/engine/request.h"

namespace annulus::engine {

attn::KernelQuery kernel_query(const Problem& p, Pass pass) {
  return {.dtype = p.dtype,
          .head_dim = p.head_dim,
          .head_dim_v = *p.head_dim_v,
          .backward = pass == Pass::backward};
}

PlanRequest plan_request(const Problem& problem, const Layout& layout, const Decision& decision,
                         Pass pass, const attn::Kernel& kernel, const TileChoice& choice) {
  PlanRequest request;
  request.problem = problem;
  request.layout = layout;
  request.algorithm = decision.algorithm;
  request.mesh = decision.mesh;
  request.pass = pass;
  request.options.outer = choice.outer;
  request.options.tile_q = choice.tile_q > 0 ? choice.tile_q : kernel.tile_q;
  request.options.tile_k = choice.tile_k > 0 ? choice.tile_k : kernel.tile_k;
  return request;
}

}  // namespace annulus::engine
