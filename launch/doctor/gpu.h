#pragma once

#include <annulus/gpu.h>

#include <string>

namespace annulus::launch {

/// Lines of doctor's table, each with a label of 11 columns.
std::string gpu_text(const GpuSurvey& survey);
/// The object "gpu" of annulus.doctor/1.
std::string gpu_json(const GpuSurvey& survey);

}  // namespace annulus::launch
