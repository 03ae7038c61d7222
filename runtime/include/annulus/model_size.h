#pragma once

#include <annulus/export.h>
#include <annulus/latency.h>

#include <cstdint>
#include <string>
#include <vector>

namespace annulus {

struct ModelSizeRequest {
  ModelShape model;
  /// genz: every layer is moe too, where there are experts.
  DimsRule rule = DimsRule::model;
};

/// Weights of the matrices of one layer. A weight is one MAC for a token that passes it, so
/// `active` counts are MACs a token too; attention's two products over keys are not in them.
struct KindSize {
  LayerKind kind = LayerKind::dense;
  std::int64_t layers = 0;
  std::int64_t attention = 0;   ///< projections
  std::int64_t ffn = 0;         ///< the router, all experts, shared ones
  std::int64_t active_ffn = 0;  ///< of these, what a token passes
};

/// Norms, biases and positions are left out: below 1e-4 of any model here.
struct ModelSize {
  std::vector<KindSize> kinds;
  std::int64_t embedding = 0;       ///< vocab x hidden, once in and once out
  std::int64_t weights = 0;         ///< of the model, both embeddings included
  std::int64_t active_weights = 0;  ///< what a token passes; of the embeddings the classifier only
  std::int64_t cache_elements = 0;  ///< of one token, all layers
};

/// Throws InvalidArgument, with the values, for a model that cannot be and for counts past 2^63.
ANNULUS_API ModelSize size_of(const ModelSizeRequest& request);

/// A model beside the one that GenZ has in its place.
struct SizeComparison {
  ModelSizeRequest model;
  ModelSizeRequest legacy;  ///< `rule` is ignored: GenZ has two
};
/// Why the sizes differ, one sentence a field, with the values.
ANNULUS_API std::vector<std::string> differences(const SizeComparison& comparison);
/// The model, GenZ in prefill and decode, GenZ in chunked steps, side by side; then the
/// differences.
ANNULUS_API std::string to_text(const SizeComparison& comparison);
/// Schema annulus.sizes/1.
ANNULUS_API std::string to_json(const SizeComparison& comparison);

}  // namespace annulus
