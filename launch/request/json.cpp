#include "launch/request/problem.h"

#include <nlohmann/json.hpp>

namespace annulus::launch {

std::string problem_json(const Problem& unresolved) {
  const Problem problem = resolved(unresolved);
  nlohmann::ordered_json json{{"batch", problem.batch},
                              {"seq", problem.seq},
                              {"seq_kv", *problem.seq_kv},
                              {"heads", problem.heads},
                              {"heads_kv", *problem.heads_kv},
                              {"head_dim", problem.head_dim},
                              {"head_dim_v", *problem.head_dim_v},
                              {"dtype", name_of(problem.dtype)},
                              {"mask", problem.mask.name()},
                              {"softcap", problem.softcap},
                              {"softmax_scale", *problem.softmax_scale}};
  return json.dump();
}

}  // namespace annulus::launch
