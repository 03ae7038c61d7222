#pragma once

#include <nlohmann/json_fwd.hpp>

#include <string>

namespace annulus::launch {

/// "dense:3,moe:58": the layers of a Hugging Face config.json, in order; those that are neither by
/// the name that the model gives them ("mamba", "linear_attention"). Empty: a dense decoder.
std::string kinds_of_layers(const nlohmann::json& config);

}  // namespace annulus::launch
