#pragma once

#include <annulus/latency.h>

#include <nlohmann/json.hpp>

#include <functional>
#include <string>

namespace annulus::test {

using Json = nlohmann::json;

/// tests/data/genz_latency.json
const Json& latency_goldens();
LatencyRequest request_of(const Json& point);
/// The point called `id`.
LatencyRequest request_called(const std::string& id);

/// config.json of DeepSeek-V3, arXiv 2412.19437.
ModelShape deepseek_v3();

/// Calls `check` with every row of genz_attention.json: what GenZ was asked, its up_all_macs_model,
/// and the row in words. Returns their number.
std::size_t for_each_whole_model(
    const std::function<void(const LatencyRequest&, std::int64_t, const std::string&)>& check);

}  // namespace annulus::test
