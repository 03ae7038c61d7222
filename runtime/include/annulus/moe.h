#pragma once

#include <annulus/export.h>
#include <annulus/moe_losses.h>
#include <annulus/moe_placement.h>
#include <annulus/moe_routing.h>

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

// Mixture of experts, what needs no device: routers, losses (moe_losses.h), capacity and placement
// (moe_placement.h). Everything is f32 on the host, row-major and of one rank, and a pure function
// of its arguments. docs/moe.md has the formulas, their sources and what happens in the corners.

namespace annulus::moe {

/// How logits become scores and weights.
enum class Score : std::uint8_t {
  softmax_selected,  ///< softmax over the selected logits (Mixtral)
  softmax_all,       ///< softmax over all experts (Qwen3, Switch)
  sigmoid,           ///< of each logit by itself (DeepSeek-V3)
};

/// A router. The named ones are below; any other mixture of these fields is allowed.
struct RouterConfig {
  std::int64_t experts = 0;
  std::int64_t k = 1;  ///< experts of a token
  Score score = Score::softmax_selected;
  /// Selected weights sum to `scale`. softmax_selected: they do so anyway. sigmoid with k = 1: has
  /// no effect, or the weight would be a constant without gradient (as Megatron).
  bool renormalize = false;
  double scale = 1.0;      ///< of every weight
  double epsilon = 1e-20;  ///< added to the sum of the selected sigmoids
  /// Experts lie in `groups` groups of neighbours; only the `groups_kept` best are candidates. A
  /// group is as good as the sum of its `group_top` best selection scores.
  std::int64_t groups = 1;
  std::int64_t groups_kept = 1;
  std::int64_t group_top = 1;

  /// arXiv 2401.04088: the k largest logits, softmax over them.
  static ANNULUS_API RouterConfig mixtral(std::int64_t experts = 8, std::int64_t k = 2);
  /// Hugging Face Qwen3-MoE: softmax, then the k largest; `renormalize` is its norm_topk_prob.
  static ANNULUS_API RouterConfig qwen3(std::int64_t experts = 128, std::int64_t k = 8,
                                        bool renormalize = true);
  /// arXiv 2412.19437: sigmoid, selection by score + bias inside the 4 best of 8 groups, scale 2.5.
  static ANNULUS_API RouterConfig deepseek_v3(std::int64_t experts = 256, std::int64_t k = 8);
  /// arXiv 2101.03961: softmax, the largest.
  static ANNULUS_API RouterConfig switch_transformer(std::int64_t experts);
};

/// "deepseek_v3", "mixtral", "qwen3", "switch", with their own k (top_k 0) or another one. Groups
/// are those of 256 experts. Throws InvalidArgument that names what is allowed.
ANNULUS_API RouterConfig router_named(std::string_view name, std::int64_t experts,
                                      std::int64_t top_k = 0);
/// Throws InvalidArgument, with the values, for a router that cannot be.
ANNULUS_API void check(const RouterConfig& config);

/// What a router reads. Borrowed; the number of tokens is that of the logits' rows.
struct RouterInput {
  std::span<const float> logits;               ///< [tokens, experts]
  std::span<const float> bias = {};            ///< [experts], for selection only; empty: none
  std::span<const std::uint8_t> padding = {};  ///< [tokens], 1: no token; empty: all are tokens
};

/// What a router saw, added up over calls until the caller clears it.
struct RouterStatus {
  std::int64_t tokens = 0;  ///< without padding
  /// Tokens with a NaN logit, or whose scores are no numbers: their weights are all 0.
  std::int64_t bad_tokens = 0;
};

/// One router: what it allocates it allocates when made, and where a Routing grows. Not to be used
/// by two threads at once.
class ANNULUS_API Router {
 public:
  /// Throws InvalidArgument for a router that cannot be.
  explicit Router(const RouterConfig& config);

  const RouterConfig& config() const { return config_; }

  /// k different experts for each token, best first, ties to the lower index; padding gets -1.
  /// Throws InvalidArgument, with the sizes, where the input does not fit.
  void forward(const RouterInput& input, Routing& routing, RouterStatus& status);

  /// Writes every element of dlogits [tokens, experts] from dweights [tokens, k]. `selected` is
  /// forward's, before capacity. A slot that is -1 in `kept` (selected itself, or what capacity
  /// left of it) passes no gradient. The bias has none.
  void backward(const RouterInput& input, const Routing& selected, const Routing& kept,
                std::span<const float> dweights, std::span<float> dlogits);

 private:
  /// The k best experts, into `chosen`.
  void select(std::span<const float> logits, std::span<const float> bias,
              std::span<std::int32_t> chosen);
  /// Weights before `scale`, into `shares`; false where they are no numbers.
  bool weigh(std::span<const float> logits, std::span<const std::int32_t> chosen,
             std::span<float> shares);
  void scatter_gradient(std::span<const float> logits, std::span<const std::int32_t> chosen,
                        std::span<float> dlogits);

  RouterConfig config_;  // what follows is room for one token
  std::vector<float> scores_;
  std::vector<float> ranked_;
  std::vector<float> groups_;
  std::vector<float> shares_;
  std::vector<float> gradients_;
  std::vector<std::int64_t> order_;
  std::vector<std::int64_t> kept_groups_;
};

/// bias += step * sign(mean(counts) - counts), sign(0) = 0: DeepSeek-V3's balancing without a loss.
/// Once an optimizer step, with the counts of all tokens of the step, summed over ranks; not for
/// passes that are repeated or only evaluate. counts, bias [experts].
ANNULUS_API void update_bias(std::span<const std::int64_t> counts, float step,
                             std::span<float> bias);

/// x [tokens, hidden] times 1 + amount (2u - 1), in place, before the logits are computed. u in
/// [0, 1) is a hash of (seed, first_token + token, column), so that the same tokens see the same
/// noise however they are sharded, and backward is this function applied to dx.
ANNULUS_API void jitter(std::span<float> x, std::int64_t hidden, float amount, std::uint64_t seed,
                        std::int64_t first_token = 0);

/// Which pairs an expert that overflows keeps.
enum class DropPolicy : std::uint8_t {
  probability,  ///< the largest weights; ties to the lower token
  position,     ///< the lowest tokens
};

/// Nothing is dropped while factor is 0.
struct Capacity {
  double factor = 0.0;
  DropPolicy policy = DropPolicy::probability;
};

/// Pairs that an expert may keep: ceil(tokens k factor / experts), Megatron's; `tokens` counts
/// padding too, so that it does not depend on the data. -1: no limit.
ANNULUS_API std::int64_t capacity_of(const Capacity& capacity, const Routing& routing);

/// Pairs by expert: apply_capacity allocates nothing where it gets one that has grown.
struct CapacityRoom {
  std::vector<std::int64_t> first;
  std::vector<std::int64_t> next;
  std::vector<std::size_t> pairs;
};

/// Drops what is over each expert's capacity: index -1, weight 0. The weights that stay are
/// untouched, so those of a token need not sum to what they did. `kept` may be `routing`. Returns
/// the number of dropped pairs.
ANNULUS_API std::int64_t apply_capacity(const Capacity& capacity, const Routing& routing,
                                        Routing& kept, CapacityRoom* room = nullptr);

}  // namespace annulus::moe
