#pragma once

#include "attention/kernels/cpu/blocks.h"
#include "attention/kernels/operand.h"

#include <algorithm>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace annulus::attn::cpu {

/// Row blocks and query heads that meet the keys of one key/value head together, so that keys are
/// read once for all of them: slot `block * heads + head` is one head's row block.
struct Unit {
  std::int64_t batch = 0;
  std::int64_t kv_head = 0;
  std::int64_t head = 0;   ///< the first
  std::int64_t heads = 0;  ///< may be none, where the launch holds a part of a group
  std::span<const RowSpan> spans;
  std::int64_t lane = 0;  ///< of (batch, kv_head)
  std::int64_t step = 0;  ///< within the lane
};

/// The units of a launch. Those of the last rows come first: under a causal mask they are the
/// longest, so that threads end together. Lanes take turns, so that threads meet in few of them.
class Units {
 public:
  /// At most `slots` slots each.
  Units(const AttendGeometry& geometry, std::span<const RowSpan> spans, std::int64_t slots)
      : geometry_(geometry),
        spans_(spans),
        first_kv_(kv_head_of(geometry, 0)),
        heads_kv_(geometry.heads > 0 ? kv_head_of(geometry, geometry.heads - 1) - first_kv_ + 1
                                     : 0),
        heads_(std::min(geometry.group, slots)),
        chunks_((geometry.group + heads_ - 1) / heads_),
        blocks_(std::max<std::int64_t>(1, slots / heads_)),
        // A launch without rows still has a unit in each lane, which defines its gradients.
        runs_(std::max<std::int64_t>(
            1, (static_cast<std::int64_t>(spans.size()) + blocks_ - 1) / blocks_)) {}

  std::int64_t lanes() const { return geometry_.batch * heads_kv_; }
  std::int64_t steps() const { return runs_ * chunks_; }
  std::int64_t count() const { return lanes() * steps(); }

  Unit at(std::int64_t index) const {
    const std::int64_t chunk = index % chunks_;
    const std::int64_t lane = index / chunks_ % lanes();
    const std::int64_t run = index / chunks_ / lanes();
    const std::int64_t kv_head = first_kv_ + lane % heads_kv_;
    const std::int64_t group = kv_head * geometry_.group - geometry_.head_offset;
    const std::int64_t head = std::max<std::int64_t>(0, group + chunk * heads_);
    const std::int64_t end =
        std::min({geometry_.heads, group + (chunk + 1) * heads_, group + geometry_.group});
    const std::int64_t last = static_cast<std::int64_t>(spans_.size()) - run * blocks_;
    const std::int64_t first = std::max<std::int64_t>(0, last - blocks_);
    return {lane / heads_kv_,
            kv_head,
            head,
            std::max<std::int64_t>(0, end - head),
            spans_.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(last - first)),
            lane,
            run * chunks_ + chunk};
  }

 private:
  const AttendGeometry& geometry_;
  std::span<const RowSpan> spans_;
  std::int64_t first_kv_, heads_kv_;
  std::int64_t heads_, chunks_;  ///< heads of a unit; units that share a group
  std::int64_t blocks_, runs_;   ///< row blocks of a unit; units that share the rows
};

inline std::vector<KeyCursor> cursors_of(std::span<const RowSpan> spans) {
  return {spans.begin(), spans.end()};
}

}  // namespace annulus::attn::cpu
