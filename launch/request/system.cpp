#include "launch/request/system.h"

#include "launch/options/value.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <fstream>
#include <set>

namespace annulus::launch {
namespace {

namespace fs = std::filesystem;

struct Field {
  std::string_view key;
  double SystemRates::*value;
  bool required;
};
constexpr std::array<Field, 8> kFields{{{"tflops", &SystemRates::tflops, true},
                                        {"memory_gib", &SystemRates::memory_gib, true},
                                        {"memory_gib_s", &SystemRates::memory_gib_s, true},
                                        {"link_gib_s", &SystemRates::link_gib_s, true},
                                        {"link_latency_us", &SystemRates::link_latency_us, false},
                                        {"onchip_gib_s", &SystemRates::onchip_gib_s, false},
                                        {"host_gib_s", &SystemRates::host_gib_s, false},
                                        {"efficiency", &SystemRates::efficiency, false}}};

void read_line(const std::string& text, const std::string& at, SystemRates& rates,
               std::set<std::string>& seen) {
  const std::size_t equals = text.find('=');
  const std::string key = trim(text.substr(0, equals));
  std::vector<std::string> known;
  for (const Field& field : kFields) {
    known.emplace_back(field.key);
    if (key != field.key || equals == std::string::npos) continue;
    if (!seen.insert(key).second) throw UsageError(fmt::format("{}: {}: given before", at, key));
    const std::string word = trim(text.substr(equals + 1));
    if (!read_real(word, rates.*field.value) || rates.*field.value <= 0) {
      throw UsageError(
          fmt::format("{}: {}: '{}' is not allowed; allowed: a number above 0", at, key, word));
    }
    return;
  }
  throw UsageError(
      fmt::format("{}: '{}' is not allowed; allowed: [system], # comment, KEY = X with {}", at,
                  text.substr(0, 60), fmt::join(known, ", ")));
}

/// Folders that may hold NAME.cfg, in the order in which they are looked at.
std::vector<fs::path> system_folders(const Settings& settings) {
  std::vector<fs::path> folders{settings.beside("system", "systems"), "configs/systems"};
  std::error_code error;
  const fs::path self = fs::read_symlink("/proc/self/exe", error);
  if (!error) {
    const fs::path prefix = self.parent_path().parent_path();
    folders.push_back(prefix.parent_path() / "configs/systems");  // SOURCE/build/bin/annulus
    folders.push_back(prefix / "share/annulus/configs/systems");
  }
  return folders;
}

fs::path find_system(const Settings& settings) {
  const std::string& name = settings.text("system");
  if (name.find('/') != std::string::npos || name.ends_with(".cfg")) {
    return settings.path("system");
  }
  std::set<std::string> known;
  std::error_code error;
  for (const fs::path& folder : system_folders(settings)) {
    const fs::path file = folder / (name + ".cfg");
    if (fs::is_regular_file(file, error)) return file;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
      if (entry.path().extension() == ".cfg") known.insert(entry.path().stem());
    }
  }
  settings.refuse(
      "system", known.empty()
                    ? "is not known: no systems/NAME.cfg was found; give a file"
                    : fmt::format("is not known; allowed: {}, or a file", fmt::join(known, ", ")));
}

}  // namespace

SystemRates read_system_file(const fs::path& file) {
  std::error_code error;
  if (!fs::is_regular_file(file, error)) {
    throw UsageError(fmt::format("system: '{}' is not a regular file", file.string()));
  }
  std::ifstream stream(file);
  SystemRates rates;
  rates.name = file.filename().string();
  std::set<std::string> seen;
  int number = 0;
  for (std::string text; std::getline(stream, text);) {
    ++number;
    const std::string line = trim(text.substr(0, text.find('#')));
    if (line.empty() || line == "[system]") continue;
    read_line(line, fmt::format("{}:{}", file.string(), number), rates, seen);
  }
  for (const Field& field : kFields) {
    if (field.required && !seen.contains(std::string(field.key))) {
      throw UsageError(fmt::format("{}: {}: missing", file.string(), field.key));
    }
  }
  return rates;
}

SystemRates system_of(const Settings& settings) {
  SystemRates rates = read_system_file(find_system(settings));
  if (settings.has("efficiency")) rates.efficiency = settings.real("efficiency");
  return rates;
}

Precision precision_of(const Settings& settings) {
  if (settings.has("precision")) return parse_precision(settings.text("precision"));
  return settings.text("dtype") == "f32" ? Precision::f32 : Precision::bf16;
}

void fill_peak(const Settings& settings, CostRequest& request) {
  const SystemRates rates = system_of(settings);
  const Precision precision = precision_of(settings);
  request.peak_tflops = rates.tflops / compute_weight(precision) * rates.efficiency;
  request.peak_source =
      fmt::format("{}, {}, efficiency {:g}", rates.name, name_of(precision), rates.efficiency);
}

Machine machine_of(const Settings& settings) {
  if (!settings.has("system")) return {};
  constexpr double kGiB = 1073741824.0;
  const SystemRates rates = system_of(settings);
  return {.name = rates.name,
          .flops_per_s =
              rates.tflops * 1e12 / compute_weight(precision_of(settings)) * rates.efficiency,
          .memory_bytes_per_s = rates.memory_gib_s * kGiB * rates.efficiency,
          .link_bytes_per_s = rates.link_gib_s * kGiB,
          .transfer_s = rates.link_latency_us * 1e-6};
}

}  // namespace annulus::launch
