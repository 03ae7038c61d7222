// A model as a list of (kind, count).
#include "runtime/cost/count.h"
#include "runtime/cost/latency/operators.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace annulus {
namespace {

LayerKind kind_of(std::string_view word, std::int64_t first, std::int64_t count) {
  for (const LayerKind kind : {LayerKind::dense, LayerKind::moe}) {
    if (word == name_of(kind)) return kind;
  }
  throw Unsupported(
      count == 1 ? fmt::format("layer {}: nobody prices kind '{}'; built: dense, moe", first, word)
                 : fmt::format("layers {} to {}: nobody prices kind '{}'; built: dense, moe", first,
                               first + count - 1, word));
}

[[noreturn]] void refuse(std::string_view text) {
  throw InvalidArgument(
      fmt::format("layer_kinds '{}': must be KIND:COUNT,..., such as dense:3,moe:58", text));
}

std::int64_t count_of(std::string_view digits, std::string_view text) {
  std::int64_t count = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), count);
  if (error != std::errc{} || end != digits.data() + digits.size() || count < 1) refuse(text);
  return count;
}

}  // namespace

std::string_view name_of(LayerKind kind) { return kind == LayerKind::dense ? "dense" : "moe"; }

std::vector<LayerGroup> parse_layer_kinds(std::string_view text) {
  std::vector<LayerGroup> groups;
  std::int64_t first = 0;
  for (std::string_view rest = text; !rest.empty();) {
    const std::string_view part = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(rest.size(), part.size() + 1));
    const std::size_t colon = part.find(':');
    if (colon == 0 || colon == std::string_view::npos) refuse(text);
    const std::int64_t count = count_of(part.substr(colon + 1), text);
    const LayerKind kind = kind_of(part.substr(0, colon), first, count);
    first = cost::plus(first, count);
    if (!groups.empty() && groups.back().kind == kind) {
      groups.back().count += count;
    } else {
      groups.push_back({.kind = kind, .count = count});
    }
  }
  if (groups.empty() || text.ends_with(',')) refuse(text);
  return groups;
}

namespace cost {

std::vector<std::int64_t> layers_by_stage(const LatencyRequest& r) {
  const std::int64_t each = ceil_div(r.model.layers, r.pp);
  std::vector<std::int64_t> layers(static_cast<std::size_t>(r.pp), each);
  layers.back() = r.model.layers - each * (r.pp - 1);
  return layers;
}

std::vector<LayerGroup> kinds_of(const ModelShape& model) {
  if (!model.layer_kinds.empty()) return model.layer_kinds;
  return {
      {.kind = model.moe.experts > 1 ? LayerKind::moe : LayerKind::dense, .count = model.layers}};
}

std::vector<std::vector<LayerGroup>> kinds_by_stage(const LatencyRequest& r) {
  std::vector<std::vector<LayerGroup>> stages;
  std::vector<LayerGroup> left = kinds_of(r.model);
  auto next = left.begin();
  for (std::int64_t layers : layers_by_stage(r)) {
    stages.emplace_back();
    while (layers > 0) {
      const std::int64_t taken = std::min(layers, next->count);
      stages.back().push_back({.kind = next->kind, .count = taken});
      layers -= taken;
      next->count -= taken;
      if (next->count == 0) ++next;
    }
  }
  return stages;
}

}  // namespace cost
}  // namespace annulus
