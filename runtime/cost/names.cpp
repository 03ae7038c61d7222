#include <annulus/cost.h>
#include <annulus/error.h>

#include <fmt/format.h>

namespace annulus {

std::string_view name_of(Stage stage) {
  switch (stage) {
    case Stage::prefill:
      return "prefill";
    case Stage::decode:
      return "decode";
    case Stage::chunked:
      return "chunked";
  }
  return "unknown";
}

std::string_view name_of(CostMode mode) {
  return mode == CostMode::original ? "original" : "corrected";
}

std::string_view name_of(CostPolicy policy) {
  return policy == CostPolicy::uniform ? "uniform" : "legacy";
}

CostMode mode_of(CostMode mode, CostPolicy policy, LayerKind kind) {
  if (policy == CostPolicy::uniform) return mode;
  return kind == LayerKind::moe ? CostMode::original : CostMode::corrected;
}

Stage parse_stage(std::string_view text) {
  for (const Stage stage : {Stage::prefill, Stage::decode, Stage::chunked}) {
    if (text == name_of(stage)) return stage;
  }
  throw InvalidArgument(fmt::format("stage '{}': must be 'prefill', 'decode' or 'chunked'", text));
}

CostMode parse_cost_mode(std::string_view text) {
  for (const CostMode mode : {CostMode::original, CostMode::corrected}) {
    if (text == name_of(mode)) return mode;
  }
  throw InvalidArgument(fmt::format("mode '{}': must be 'original' or 'corrected'", text));
}

}  // namespace annulus
