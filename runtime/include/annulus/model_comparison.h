#pragma once

#include <annulus/export.h>
#include <annulus/latency.h>

#include <string>
#include <vector>

namespace annulus {

/// One stage of a model, and of the one that GenZ has in its place on the same ranks.
struct ModelComparison {
  ModeComparison model;
  ModeComparison legacy;
};

/// FLOPs and time of both, in all and by part of the model, then why they differ.
ANNULUS_API std::string to_text(const std::vector<ModelComparison>& stages);
/// Schema annulus.models/1.
ANNULUS_API std::string to_json(const std::vector<ModelComparison>& stages);

}  // namespace annulus
