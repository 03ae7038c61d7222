#include "launch/options/sources.h"

#include <fmt/format.h>

namespace annulus::launch {

void read_environment(Environment environment, Settings& settings) {
  constexpr std::string_view kPrefix = "ANNULUS_";
  if (environment == nullptr) return;
  for (; *environment != nullptr; ++environment) {
    const std::string_view entry = *environment;
    const std::size_t equals = entry.find('=');
    if (!entry.starts_with(kPrefix) || equals == std::string_view::npos) continue;
    const std::string variable(entry.substr(0, equals));
    const Key* found = nullptr;
    std::vector<std::string> known;
    for (const Key& key : keys()) {
      known.push_back(variable_of(key.name));
      if (known.back() == variable) found = &key;
    }
    if (found == nullptr) {
      const std::string meant = nearest(variable, known);
      throw UsageError(fmt::format("{}: names no option; {}", variable,
                                   meant.empty() ? "unset it, or see annulus bench --help"
                                                 : fmt::format("did you mean {}?", meant)));
    }
    settings.set(found->name, {.text = std::string(entry.substr(equals + 1)),
                               .origin = Origin::environment,
                               .where = variable,
                               .folder = {}});
  }
}

}  // namespace annulus::launch
