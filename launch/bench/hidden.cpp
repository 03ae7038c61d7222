#include "launch/bench/hidden.h"

#include "launch/bench/measure.h"

#include <annulus/collective.h>

#include <exception>
#include <memory>

namespace annulus::launch {
namespace {

constexpr int kCalls = 9;

/// A graph on every rank, or none. Ranks may share a GPU, which making one may wait for.
std::unique_ptr<DeviceGraph> capture(Mesh& mesh, Attention& attention, Pass pass,
                                     const Place& place, std::string& why_not) {
  barrier(mesh, "bench: before a capture");
  std::unique_ptr<DeviceGraph> graph;
  std::string error;
  try {
    graph = place.captured(attention, pass);
  } catch (const std::exception& caught) {
    error = caught.what();
  }
  why_not = first_text(mesh, error);
  if (!why_not.empty()) return nullptr;
  attention.synchronize(place.stream().get());
  barrier(mesh, "bench: graphs are ready");
  return graph;
}

/// Median of the slowest ranks.
template <typename Sample>
double median_of(Mesh& mesh, const Sample& sample) {
  std::vector<double> samples;
  for (int i = 0; i < kCalls; ++i) samples.push_back(sample());
  return timing_over_ranks(mesh, samples).median_s;
}

}  // namespace

HiddenCosts hidden_costs(Mesh& mesh, Attention& attention, Pass pass, const Place& place,
                         const std::vector<double>& host_s) {
  HiddenCosts costs;
  costs.host_s = timing_over_ranks(mesh, host_s).median_s;
  costs.host_again_s = median_of(mesh, [&] { return place.host_again(attention, pass); });
  costs.cold_s = median_of(mesh, [&] { return place.cold(attention, pass); });
  {
    const auto graph = capture(mesh, attention, pass, place, costs.no_graph);
    if (graph) {
      std::vector<double> device;
      std::vector<double> host;
      for (int i = 0; i < kCalls; ++i) {
        const CallTime time = place.replayed(attention, *graph);
        device.push_back(time.device_s);
        host.push_back(time.host_s);
      }
      costs.graph_s = timing_over_ranks(mesh, device).median_s;
      costs.graph_host_s = timing_over_ranks(mesh, host).median_s;
      costs.graph_host_again_s =
          median_of(mesh, [&] { return place.host_again(attention, *graph); });
      barrier(mesh, "bench: graphs are dropped");
    }
  }
  (void)place.timed(attention, pass);
  return costs;
}

}  // namespace annulus::launch
