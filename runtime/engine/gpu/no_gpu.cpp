// Where CUDA is not built.
#include <annulus/gpu.h>

namespace annulus {

GpuSurvey survey_gpus(double /*timeout_s*/) {
  GpuSurvey survey;
  survey.unavailable = "built without CUDA (ANNULUS_WITH_CUDA=ON builds it)";
  survey.links_unavailable = survey.counters_unavailable = "no GPU";
  return survey;
}

}  // namespace annulus
