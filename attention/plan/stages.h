#pragma once

#include "attention/plan/builder.h"

namespace annulus::attn {

/// The tensors of one group on one rank: all rows of the group, the rank's own heads. Without
/// ulysses these are the caller's.
struct GroupTensors {
  SlotView q, k, v;
  SlotView out, lse;            ///< forward: to be written
  SlotView dout, delta;         ///< backward (lse is read)
  std::int32_t packed_kv = -1;  ///< K|V in one slot, ready to be sent; -1: k and v are enough
};

/// Gradients that the outer algorithm leaves behind, still in group shape: fp32, or the caller's
/// own tensors.
struct GroupGradients {
  SlotView dq, dk, dv;
};

/// What a head range of the group's slots starts at.
SlotView view(std::int32_t slot, std::int32_t head_origin, std::int32_t dim = 0);

// ---- ulysses.cpp: heads are scattered and the sequence gathered, and back. Degree 1: nothing
// moves.
/// `pack`: K and V are wanted in one slot of `kv_tokens` tokens, the group's own first.
GroupTensors scatter_heads(RankBuilder& b, bool pack, std::int64_t kv_tokens);
void gather_heads_forward(RankBuilder& b, const GroupTensors& t);
void gather_heads_backward(RankBuilder& b, const GroupGradients& g);
/// Where gradients should accumulate: the caller's own tensors where that is all there is to do.
SlotView dq_target(RankBuilder& b);

// ---- ulysses_slices.cpp: the same with attention between, where all ranks are one group.
void sliced_forward(RankBuilder& b);
/// Of key/value heads that have one reader each.
void sliced_backward(RankBuilder& b);

// ---- ring.cpp: key/value chunks travel around the groups.
void ring_forward(RankBuilder& b, const GroupTensors& t);
GroupGradients ring_backward(RankBuilder& b, const GroupTensors& t);

// ---- ring_queries.cpp: queries travel around the groups instead.
GroupGradients ring_queries_backward(RankBuilder& b, const GroupTensors& t);

// ---- gather.cpp: key/value slices are pulled from their owners.
void gather_forward(RankBuilder& b, const GroupTensors& t);
GroupGradients gather_backward(RankBuilder& b, const GroupTensors& t);

// ---- gather_at_once.cpp: the same in one launch (GatherLaunch).
void gather_at_once_forward(RankBuilder& b, const GroupTensors& t);
GroupGradients gather_at_once_backward(RankBuilder& b, const GroupTensors& t);

// ---- local.cpp: all keys are here.
void local_forward(RankBuilder& b, const GroupTensors& t);
GroupGradients local_backward(RankBuilder& b, const GroupTensors& t);
/// dk and dv where attends write all of own keys' in `dtype`: the caller's own tensors where that
/// is all there is to do, else one slot.
GroupGradients dkv_target(RankBuilder& b, DType dtype);

}  // namespace annulus::attn
