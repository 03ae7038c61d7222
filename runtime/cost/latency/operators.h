#pragma once

#include <annulus/latency.h>

#include <vector>

namespace annulus::cost {

/// The operators of the request's stage in GenZ's order, without times.
std::vector<OperatorRow> operators_of(const LatencyRequest& request, std::int64_t micro_batch);

/// Fills the three times of a row. `memory_gib_s` stands for the system's where it is offloaded.
void time_row(OperatorRow& row, const LatencyRequest& request, double memory_gib_s);

double bytes_of(std::int64_t elements, Precision precision);

/// These throw InvalidArgument for sizes that cannot be.
void validate(const LatencyRequest& request);
void validate_experts(const ExpertShape& moe, std::int64_t ep);
void validate_kinds(const ModelShape& model);
/// Of values and latents.
void validate_widths(const ModelShape& model);

/// Layers of each pipeline stage.
std::vector<std::int64_t> layers_by_stage(const LatencyRequest& request);

/// All layers, also of a model that does not list them.
std::vector<LayerGroup> kinds_of(const ModelShape& model);

/// Layers of each pipeline stage, by kind.
std::vector<std::vector<LayerGroup>> kinds_by_stage(const LatencyRequest& request);

}  // namespace annulus::cost
