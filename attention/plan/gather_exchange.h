#pragma once

#include "attention/plan/stages.h"

#include <cstdint>
#include <string_view>
#include <vector>

namespace annulus::attn {

/// Tokens that move together: `source` tokens of an owner's slot, one after the other, to every
/// `step`-th token of the receiver's buffer.
struct Run {
  std::int64_t source = 0;
  std::int64_t target = 0;
  std::int64_t count = 0;
  std::int64_t step = 1;
  TokenRange positions;  ///< that they hold
};

/// Does the one launch of a gather read the slot that own keys are packed in? With ulysses own keys
/// arrive too, and what an attend takes as it comes is of one exchange.
bool gathers_in_place(const PlanRequest& request);
/// Do the owners push K and V out of the caller's tensors? Then nothing packs them.
bool pushes_keys(const PlanRequest& request);
/// Tokens of that slot: all that the group owns, then those that it needs.
std::int64_t tokens_in_place(const Plan::Impl& plan, int group);

/// Whose keys go where in `gather`: one rank's part.
class Exchange {
 public:
  Exchange(RankBuilder& b, const GroupTensors& t, GatherLaunch launch);

  int slices() const { return static_cast<int>(slices_.size()); }
  std::vector<Segment> segments() const { return segments_of(keys_); }
  int groups() const { return b_.plan().request.mesh.ring; }

  /// A slot for a slice, or for all where they lie together.
  std::int32_t buffer(std::string_view name, DType dtype, std::int64_t tokens) {
    return b_.slot(name, dtype, tokens, widest_, b_.dim() + b_.dim_v());
  }
  std::int64_t tokens() const { return tokens_; }
  /// Where one launch finds K and V of all slices, which are on their way there. On arrival that is
  /// the packed slot, where own keys are already; pushed ones have a slot each.
  struct Gathered {
    std::int32_t k = -1;
    std::int32_t v = -1;
  };
  Gathered gather_all();

  /// Own keys that a group needs, and a group's keys that this rank needs.
  const std::vector<Run>& given(int group) const { return given_[static_cast<std::size_t>(group)]; }
  const std::vector<Run>& taken(int group) const { return taken_[static_cast<std::size_t>(group)]; }
  /// The same as they travel.
  const std::vector<Run>& sent(int group) const { return sent_[static_cast<std::size_t>(group)]; }
  const std::vector<Run>& received(int group) const {
    return received_[static_cast<std::size_t>(group)];
  }
  /// The group that is `d` further than this one.
  int group_at(int d) const { return (b_.ring_index() + d + groups()) % groups(); }
  int rank_of(int group) const { return b_.plan().rank_at(group, b_.ulysses_index()); }

  /// Slice i in a buffer.
  Block part(std::int32_t buffer, int i, const Run& run) const {
    return part_of(buffer, slice(i), run);
  }
  /// Slice i in a slot that holds all own keys and all key/value heads.
  Block own(std::int32_t slot, int i, const Run& run) const { return own_of(slot, slice(i), run); }

  /// The same of all slices, where they lie together.
  Block all_of(std::int32_t buffer, const Run& run) const { return part_of(buffer, all(), run); }
  Block all_own(std::int32_t slot, const Run& run) const { return own_of(slot, all(), run); }

  /// Keys of slice i come into `buffer`; own ones are given to whoever needs them.
  void pull(std::int32_t buffer, int i);

  /// An attend task over slice i in `buffer`, operands of the pass still to be filled.
  Attend attend(std::int32_t buffer, int i) const;
  /// The same over all slices, which lie together.
  Attend attend(const Gathered& from) const;

 private:
  /// Heads of slice i, counted from the rank's first key/value head.
  HeadRange slice(int i) const { return slices_[static_cast<std::size_t>(i)]; }
  HeadRange all() const { return {0, b_.heads_kv().count}; }
  Block part_of(std::int32_t buffer, HeadRange heads, const Run& run) const;
  Block own_of(std::int32_t slot, HeadRange heads, const Run& run) const;
  void copy_own(std::int32_t buffer, HeadRange heads, int step);
  Gathered push_all();
  void push(const Gathered& to, int i);
  HeadRange query_heads(int i) const;
  Attend attend(const Gathered& from, HeadRange heads, std::int32_t first_kv) const;
  std::int32_t wish() const;
  void cut_heads();
  std::int64_t rows_of_a_key() const;
  void place_by_arrival();
  const std::vector<KeyInterval>& needed(int group) const {
    return b_.plan().needed[static_cast<std::size_t>(group)];
  }
  const std::vector<TokenRange>& owned(int group) const {
    return b_.plan().groups[static_cast<std::size_t>(group)].keys;
  }

  RankBuilder& b_;
  const GroupTensors& t_;
  bool whole_;    ///< all slices lie in one buffer
  bool arrival_;  ///< in the order in which they arrive
  std::vector<std::vector<Run>> given_;
  std::vector<std::vector<Run>> taken_;
  std::vector<std::vector<Run>> sent_;      ///< what is given, as it travels
  std::vector<std::vector<Run>> received_;  ///< and what is taken
  std::vector<HeadRange> slices_;
  std::int32_t widest_ = 0;
  std::vector<TokenRange> keys_;
  std::int64_t tokens_ = 0;
};

}  // namespace annulus::attn
