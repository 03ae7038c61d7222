#pragma once

#include "attention/plan/context.h"

#include <annulus/plan.h>

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace annulus::attn {

Block with_tokens(Block block, std::int64_t token, std::int64_t tokens, std::int64_t step = 1);
Block with_heads(Block block, std::int32_t head, std::int32_t heads);
Block with_dims(Block block, std::int32_t dim, std::int32_t dims);

/// Whether items are kept, or only counted.
enum class Detail : std::uint8_t { items, totals };

/// Query rows that an attend meets: part of RankPlan::rows.
struct QueryRows {
  const RowTable* table = nullptr;
  std::int64_t first_row = 0;
};

/// Writes one rank's plan: slots, then items in enqueue order. Says what each item touches; edges,
/// arena offsets and totals follow in finish(). Empty blocks give no item, on either end.
class RankBuilder {
 public:
  RankBuilder(const Plan::Impl& plan, int rank, Detail detail = Detail::items);

  const Plan::Impl& plan() const { return plan_; }
  const Problem& problem() const { return plan_.problem(); }
  int rank() const { return rank_; }
  int ring_index() const { return plan_.ring_index(rank_); }
  int ulysses_index() const { return plan_.ulysses_index(rank_); }
  const Group& group() const { return plan_.groups[static_cast<std::size_t>(ring_index())]; }
  HeadRange heads() const { return plan_.heads[static_cast<std::size_t>(ulysses_index())]; }
  HeadRange heads_kv() const { return plan_.heads_kv[static_cast<std::size_t>(ulysses_index())]; }
  std::int32_t dim() const { return static_cast<std::int32_t>(problem().head_dim); }
  std::int32_t dim_v() const { return static_cast<std::int32_t>(*problem().head_dim_v); }
  const RowTable& rows() const { return rows_; }

  /// A private slot; finish() makes it symmetric where a transfer touches it.
  std::int32_t slot(std::string_view name, DType dtype, std::int64_t tokens, std::int32_t heads,
                    std::int32_t dim);
  /// The slot of a caller's tensor, made on first use.
  std::int32_t caller(Role role);
  /// Transfers may not read what ulysses groups exchange of the caller's tensors, or not write
  /// their results there.
  bool stages_sources() const { return options().stage_caller && !options().give_in_place; }
  bool stages_results() const { return options().stage_caller && !options().land_in_place; }
  /// Who moves them: the end that is a caller's tensor.
  Mover source_mover() const {
    return options().stage_caller && !stages_sources() ? Mover::sender : Mover::any;
  }
  Mover result_mover() const {
    return options().stage_caller && !stages_results() ? Mover::receiver : Mover::any;
  }
  /// Where transfers may read these heads of a caller's tensor: itself, or a copy.
  std::int32_t source(Role role, HeadRange heads);
  /// Where transfers may write for a caller's tensor: itself, or a slot of its shape that has to be
  /// copied out.
  std::int32_t landing(Role role);
  /// A slot of the shape of a caller's tensor.
  std::int32_t like(Role role);
  /// The same slot, of which other ranks read or write some heads: with `stage_caller` it lies
  /// heads first, so that these are whole pieces, or one for each of them. Other end: the same. Of
  /// a caller's tensor: it lies so.
  std::int32_t heads_first(std::int32_t slot);
  Block whole(std::int32_t slot) const;
  std::int64_t tokens(std::int32_t slot) const;
  /// Of dk and dv that one attend writes whole, and nobody adds to.
  DType own_dkv() const { return plan_.request.options.rounded_dkv ? problem().dtype : DType::f32; }

  /// Transfers from here on are a new round, one launch where a transport groups them. Called at
  /// the same places by all ranks that exchange.
  void next_round() { ++round_; }
  /// The same where those before made different numbers of rounds.
  void next_stage() { round_ = (round_ / kStage + 1) * kStage; }
  void transfer(bool sends, int peer, const Block& block, int step, Mover mover = Mover::any);
  void copy(const Block& source, const Block& target, int step);
  /// fp32 to the input dtype (a copy where that is fp32).
  void convert(const Block& source, const Block& target, int step);
  void zero(const Block& target, int step);
  void row_sums(const Block& a, const Block& b, const Block& target, int step);
  void reduce(const Block& source, const Block& target, bool assign, int step);
  void merge(const Merge& merge, int step);
  /// Fills queries (all own rows), keys, pairs (counted unless known) and flops.
  void attend(Attend attend, const std::vector<Segment>& keys, int step,
              std::int64_t known_pairs = -1);
  /// The same of rows that came from another group.
  void attend(Attend attend, const QueryRows& queries, const std::vector<Segment>& keys, int step,
              std::int64_t known_pairs = -1);
  /// The rows of a group whose queries come here (Plan::Impl::row_tables).
  QueryRows rows_of(int group);

  /// Unmasked pairs of all rows with these keys, of one head and batch element.
  std::int64_t pairs(const std::vector<TokenRange>& keys) const;
  static std::int64_t pairs(const RowTable& rows, const std::vector<TokenRange>& keys);

  RankPlan finish();

 private:
  static constexpr std::int32_t kStage = 1 << 24;

  static std::int64_t pairs(const RowTable& rows, const std::vector<Segment>& keys);
  const PlanOptions& options() const { return plan_.request.options; }
  void add(ItemKind kind, std::size_t payload, int step, std::span<const Access> accesses);
  void prepare(PrepareKind kind, const Block& source, const Block& source2, const Block& target,
               int step);
  void add_edges();
  void place_slots();
  void drop_items();

  const Plan::Impl& plan_;
  int rank_;
  Detail detail_;
  std::int32_t round_ = 0;
  RowTable rows_;
  std::int64_t visiting_rows_ = 0;
  RankPlan out_;
  std::vector<std::int32_t> caller_slots_;
  std::vector<std::int32_t> send_tags_;
  std::vector<std::int32_t> receive_tags_;
};

/// Segments of consecutive slot tokens, from `token` on, that hold `ranges` in order.
std::vector<Segment> segments_of(const std::vector<TokenRange>& ranges, std::int64_t token = 0);

}  // namespace annulus::attn
