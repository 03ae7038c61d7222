#pragma once

#include "launch/bench/moe/measure.h"
#include "launch/request/moe.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace annulus::launch {

/// One layer of a kind: its FFN, and both passes with attention.
struct KindReport {
  LayerKind kind = LayerKind::moe;
  std::int64_t layers = 1;  ///< that the model has
  MoeReport ffn;
  std::optional<Timing> forward, backward;
};

/// One rank's FFNs of op layer, one of each kind of layer; without kinds nothing happens.
class KindRuns {
 public:
  /// Collective. `requests` outlive it.
  KindRuns(Mesh& mesh, const std::vector<KindRequest>& requests, std::uint64_t seed,
           const std::vector<std::int64_t>& tokens, bool backward);

  /// One call of every kind. Collective. Negative `call`: a warm-up.
  void time(std::int64_t call);
  /// Figures and checks, then what a balanced routing takes. Collective. Times are attention's by
  /// call: each kind's are added.
  std::vector<KindReport> finish(const Settings& settings, std::span<const double> forward_s,
                                 std::span<const double> backward_s,
                                 std::int64_t measured_peak_bytes);

 private:
  struct Run {
    const KindRequest* request;
    std::unique_ptr<MoeRun> ffn;
    MoeTimes times;
  };
  KindReport report_of(Run& run, const Settings& settings, std::span<const double> forward_s,
                       std::span<const double> backward_s);

  Mesh& mesh_;
  bool backward_;
  std::vector<Run> runs_;
};

/// All layers, each priced by what one of its kind took and did. All ranks together but times.
struct ModelSums {
  std::int64_t layers = 0;
  double forward_s = 0, backward_s = 0;
  std::int64_t forward_flops = 0, backward_flops = 0;  ///< executed, attention's included
  std::int64_t bytes_sent = 0;                         ///< of the FFNs, both passes
};
ModelSums sums_of(const std::vector<KindReport>& kinds, const CountedFlops& attention);

std::string to_text(const std::vector<KindReport>& kinds, const CountedFlops& attention);
/// The object `layer` of op layer's report: JSON text.
std::string kinds_json(const std::vector<KindReport>& kinds, const CountedFlops& attention);

}  // namespace annulus::launch
