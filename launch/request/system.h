#pragma once

#include "launch/options/settings.h"

#include <annulus/annulus.h>

#include <filesystem>

namespace annulus::launch {

/// A [system] file: `key = value` lines, # comments. Throws UsageError naming FILE:LINE.
SystemRates read_system_file(const std::filesystem::path& file);

/// What `system` names: a file, or NAME for systems/NAME.cfg beside the configuration, in
/// configs/ here, or where Annulus was built or installed. `efficiency`, where given, replaces the
/// file's. Throws UsageError that lists the names found.
SystemRates system_of(const Settings& settings);

/// peak_tflops and peak_source of the predicted attention time, from `system`.
void fill_peak(const Settings& settings, CostRequest& request);

/// Rates that plans are priced with: those of `system`, or of one CPU core.
Machine machine_of(const Settings& settings);

/// `precision`; where nobody gave it, the narrowest that holds `dtype`.
Precision precision_of(const Settings& settings);

}  // namespace annulus::launch
