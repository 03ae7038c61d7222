#include "launch/agree.h"

#include "launch/options/value.h"

#include <annulus/collective.h>

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace annulus::launch {
namespace {

/// Every rank's text, in rank order.
std::vector<std::string> gather_texts(Mesh& mesh, std::string text, std::string_view what) {
  const auto world = static_cast<std::size_t>(mesh.world());
  const std::uint64_t mine = text.size();
  std::vector<std::uint64_t> lengths(world);
  all_gather(mesh, std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(lengths)),
             what);
  const std::uint64_t longest = std::ranges::max(lengths);
  text.resize(longest);
  std::string all(longest * world, '\0');
  all_gather(mesh, std::as_bytes(std::span(text)), std::as_writable_bytes(std::span(all)), what);
  std::vector<std::string> texts;
  for (std::size_t r = 0; r < world; ++r) texts.push_back(all.substr(r * longest, lengths[r]));
  return texts;
}

/// Keys whose values all ranks must share, in the order of the table.
std::vector<const Key*> shared_keys() {
  std::vector<const Key*> shared;
  for (const Key& key : keys()) {
    if (key.section != "report" && key.name != "threads") shared.push_back(&key);
  }
  return shared;
}

}  // namespace

void require_same_settings(Mesh& mesh, const Settings& settings) {
  constexpr char kEnd = '\0';  // no value holds it
  std::string mine;
  for (const Key* key : shared_keys()) {
    if (settings.has(key->name)) mine += settings.text(key->name);
    mine += kEnd;
  }
  const std::vector<std::string> texts = gather_texts(mesh, mine, "the settings of all ranks");
  for (std::size_t rank = 1; rank < texts.size(); ++rank) {
    if (texts[rank] == texts.front()) continue;
    const std::vector<std::string> first = split(texts.front(), kEnd);
    const std::vector<std::string> other = split(texts[rank], kEnd);
    for (std::size_t k = 0; k < shared_keys().size(); ++k) {
      if (first[k] == other[k]) continue;
      const std::string_view name = shared_keys()[k]->name;
      throw UsageError(
          fmt::format("{}: rank 0 has '{}', rank {} has '{}'; allowed: the same on every rank",
                      settings.where(name), first[k], rank, other[k]));
    }
  }
}

void refuse_together(Mesh& mesh, const std::string& text) {
  const std::string first =
      gather_texts(mesh, mesh.rank() == 0 ? text : std::string(), "what rank 0 refuses").front();
  if (!first.empty()) throw UsageError(first);
}

}  // namespace annulus::launch
