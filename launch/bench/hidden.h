#pragma once

#include "launch/bench/place.h"

#include <annulus/annulus.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace annulus::launch {

/// What a timed call of one pass on a GPU does not show, each the median over the slowest rank of
/// each call.
struct HiddenCosts {
  double host_s = 0;        ///< of the host, to enqueue a call
  double host_again_s = 0;  ///< the same right behind another call, as in a loop over layers
  double cold_s = 0;        ///< from the call to its end as the host sees it, nothing queued before
  std::optional<double> graph_s;       ///< a replay of the captured call, between events
  std::optional<double> graph_host_s;  ///< of the host, to enqueue a replay
  std::optional<double> graph_host_again_s;
  std::string no_graph;  ///< why there is none
};

/// Collective. `host_s`: of the timed calls. The last call of `pass` is an eager one afterwards.
HiddenCosts hidden_costs(Mesh& mesh, Attention& attention, Pass pass, const Place& place,
                         const std::vector<double>& host_s);

}  // namespace annulus::launch
