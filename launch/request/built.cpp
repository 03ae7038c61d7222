#include "launch/request/problem.h"

#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>

namespace annulus::launch {
namespace {

/// A choice of which only some words are built.
void allow(const Settings& settings, std::string_view key,
           std::initializer_list<std::string_view> built) {
  const std::string& word = settings.text(key);
  if (std::ranges::find(built, word) != built.end()) return;
  settings.refuse(key, fmt::format("is not built yet; built: {}", fmt::join(built, ", ")));
}

/// A key that has no effect yet.
void leave_out(const Settings& settings, std::string_view key) {
  if (settings.has(key)) {
    settings.refuse(key, fmt::format("is not allowed: {} is not built yet; leave it out", key));
  }
}

}  // namespace

void refuse_unbuilt(const Settings& settings) {
  // A report that was asked for must not be missing without a word.
  for (const char* key : {"html", "trace", "svg"}) leave_out(settings, key);
  if (settings.integer("shrink") != 1) settings.refuse("shrink", "is not built yet; built: 1");
}

void refuse_unbuilt_run(const Settings& settings) {
  refuse_unbuilt(settings);
  leave_out(settings, "suite");
  allow(settings, "op", {"attention"});
  allow(settings, "backend", {"auto", "cpu"});
  allow(settings, "transport", {"auto", "local", "mpi"});
}

void refuse_unbuilt_prediction(const Settings& settings) {
  refuse_unbuilt(settings);
  leave_out(settings, "system");
}

}  // namespace annulus::launch
