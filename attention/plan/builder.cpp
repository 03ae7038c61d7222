#include "attention/plan/builder.h"

#include "attention/plan/attend_accesses.h"
#include "attention/plan/hazards.h"

#include <algorithm>

namespace annulus::attn {
namespace {

constexpr std::int64_t kSlotAlign = 256;
constexpr std::size_t kRoles = 10;

bool empty(const Block& b) { return b.tokens <= 0 || b.heads <= 0 || b.dims <= 0; }

struct CallerShape {
  std::string_view name;
  bool keys = false;      ///< shards of the keys, and their heads
  bool wide_v = false;    ///< head_dim_v
  bool row_stat = false;  ///< lse: one fp32 a row
};

CallerShape shape_of(Role role) {
  switch (role) {
    case Role::q:
      return {"q"};
    case Role::k:
      return {"k", true};
    case Role::v:
      return {"v", true, true};
    case Role::out:
      return {"out", false, true};
    case Role::lse:
      return {"lse", false, false, true};
    case Role::dout:
      return {"dout", false, true};
    case Role::dq:
      return {"dq"};
    case Role::dk:
      return {"dk", true};
    case Role::dv:
      return {"dv", true, true};
    case Role::none:
      break;
  }
  return {"?"};
}

}  // namespace

Block with_tokens(Block block, std::int64_t token, std::int64_t tokens, std::int64_t step) {
  block.token = token;
  block.tokens = tokens;
  block.token_step = step;
  return block;
}

Block with_heads(Block block, std::int32_t head, std::int32_t heads) {
  block.head = head;
  block.heads = heads;
  return block;
}

Block with_dims(Block block, std::int32_t dim, std::int32_t dims) {
  block.dim = dim;
  block.dims = dims;
  return block;
}

std::vector<Segment> segments_of(const std::vector<TokenRange>& ranges, std::int64_t token) {
  std::vector<Segment> segments;
  for (const TokenRange& range : ranges) {
    segments.push_back({-1, token, range, 0});
    token += range.count;
  }
  return segments;
}

RankBuilder::RankBuilder(const Plan::Impl& plan, int rank, Detail detail)
    : plan_(plan),
      rank_(rank),
      detail_(detail),
      rows_(plan.bands, plan.groups[static_cast<std::size_t>(plan.ring_index(rank))].rows),
      caller_slots_(kRoles, -1),
      send_tags_(static_cast<std::size_t>(plan.request.mesh.world()), 0),
      receive_tags_(send_tags_) {
  out_.rank = rank;
  out_.pass = plan.request.pass;
  out_.rows = group().rows;
}

std::int32_t RankBuilder::slot(std::string_view name, DType dtype, std::int64_t tokens,
                               std::int32_t heads, std::int32_t dim) {
  PlanSlot slot;
  slot.name = name;
  slot.dtype = dtype;
  slot.tokens = tokens;
  slot.heads = heads;
  slot.dim = dim;
  slot.bytes = problem().batch * tokens * heads * dim * size_of(dtype);
  out_.slots.push_back(slot);
  return static_cast<std::int32_t>(out_.slots.size()) - 1;
}

std::int32_t RankBuilder::caller(Role role) {
  std::int32_t& known = caller_slots_[static_cast<std::size_t>(role)];
  if (known >= 0) return known;
  const CallerShape shape = shape_of(role);
  const auto heads = static_cast<std::int32_t>(shape.keys ? *problem().heads_kv : problem().heads);
  const std::int64_t tokens =
      shape.keys ? plan_.sharding.seq_kv_local(rank_) : plan_.sharding.seq_local(rank_);
  known = slot(shape.name, shape.row_stat ? DType::f32 : problem().dtype, tokens, heads,
               shape.row_stat ? 1 : (shape.wide_v ? dim_v() : dim()));
  PlanSlot& made = out_.slots.back();
  made.space = Space::caller;
  made.role = role;
  return known;
}

std::int32_t RankBuilder::source(Role role, HeadRange heads) {
  const std::int32_t original = caller(role);
  if (!stages_sources()) return original;
  const std::int32_t staged = like(role);
  copy(with_heads(whole(original), heads.first, heads.count),
       with_heads(whole(staged), heads.first, heads.count), 0);
  return staged;
}

std::int32_t RankBuilder::landing(Role role) {
  return stages_results() ? like(role) : caller(role);
}

std::int32_t RankBuilder::like(Role role) {
  const PlanSlot shape = out_.slots[static_cast<std::size_t>(caller(role))];
  return slot(shape.name, shape.dtype, shape.tokens, shape.heads, shape.dim);
}

std::int32_t RankBuilder::heads_first(std::int32_t slot) {
  if (options().stage_caller) {
    out_.slots[static_cast<std::size_t>(slot)].heads_first = true;
  }
  return slot;
}

Block RankBuilder::whole(std::int32_t slot) const {
  const PlanSlot& s = out_.slots[static_cast<std::size_t>(slot)];
  return {slot, 0, s.tokens, 1, 0, s.heads, 0, s.dim};
}

std::int64_t RankBuilder::tokens(std::int32_t slot) const {
  return out_.slots[static_cast<std::size_t>(slot)].tokens;
}

void RankBuilder::add(ItemKind kind, std::size_t payload, int step,
                      std::span<const Access> accesses) {
  ++out_.item_count;
  if (detail_ == Detail::totals) return drop_items();
  Item item;
  item.kind = kind;
  item.step = step;
  item.payload = static_cast<std::int32_t>(payload);
  item.accesses = {static_cast<std::int32_t>(out_.accesses.size()),
                   static_cast<std::int32_t>(accesses.size())};
  out_.accesses.insert(out_.accesses.end(), accesses.begin(), accesses.end());
  out_.items.push_back(item);
}

void RankBuilder::transfer(bool sends, int peer, const Block& block, int step, Mover mover) {
  if (empty(block)) return;
  Transfer t;
  t.sends = sends;
  t.peer = peer;
  t.tag = (sends ? send_tags_ : receive_tags_)[static_cast<std::size_t>(peer)]++;
  t.round = round_;
  t.mover = mover;
  t.block = block;
  t.bytes = problem().batch * block.tokens * block.heads * block.dims *
            size_of(out_.slots[static_cast<std::size_t>(block.slot)].dtype);
  out_.transfers.push_back(t);
  ++out_.transfer_count;
  (sends ? out_.bytes_sent : out_.bytes_received) += t.bytes;
  const Access access{block, sends ? AccessMode::read : AccessMode::write};
  add(ItemKind::transfer, out_.transfers.size() - 1, step, {&access, 1});
}

void RankBuilder::prepare(PrepareKind kind, const Block& source, const Block& source2,
                          const Block& target, int step) {
  if (empty(target)) return;
  out_.prepares.push_back({kind, source, source2, target});
  std::vector<Access> accesses{{target, AccessMode::write}};
  if (source.slot >= 0) accesses.push_back({source, AccessMode::read});
  if (source2.slot >= 0) accesses.push_back({source2, AccessMode::read});
  add(ItemKind::prepare, out_.prepares.size() - 1, step, accesses);
}

void RankBuilder::copy(const Block& source, const Block& target, int step) {
  prepare(PrepareKind::copy, source, {}, target, step);
}

void RankBuilder::convert(const Block& source, const Block& target, int step) {
  prepare(PrepareKind::convert, source, {}, target, step);
}

void RankBuilder::zero(const Block& target, int step) {
  prepare(PrepareKind::zero, {}, {}, target, step);
}

void RankBuilder::row_sums(const Block& a, const Block& b, const Block& target, int step) {
  prepare(PrepareKind::row_sums, a, b, target, step);
}

void RankBuilder::reduce(const Block& source, const Block& target, bool assign, int step) {
  if (empty(target)) return;
  out_.reduces.push_back({source, target, assign});
  const Access accesses[] = {{target, assign ? AccessMode::write : AccessMode::update},
                             {source, AccessMode::read}};
  add(ItemKind::reduce, out_.reduces.size() - 1, step, accesses);
}

void RankBuilder::merge(const Merge& merge, int step) {
  if (empty(merge.state)) return;
  out_.merges.push_back(merge);
  std::vector<Access> accesses{{merge.state, AccessMode::update},
                               {merge.lse, AccessMode::update},
                               {merge.other, AccessMode::read},
                               {merge.other_lse, AccessMode::read}};
  if (merge.out.slot >= 0 && merge.out.slot != merge.state.slot) {
    accesses.push_back({merge.out, AccessMode::write});
  }
  add(ItemKind::merge, out_.merges.size() - 1, step, accesses);
}

std::int64_t RankBuilder::pairs(const std::vector<TokenRange>& keys) const {
  return pairs(rows_, keys);
}

std::int64_t RankBuilder::pairs(const RowTable& rows, const std::vector<TokenRange>& keys) {
  std::int64_t sum = 0;
  for (const TokenRange& range : keys) sum += rows.pairs(range);
  return sum;
}

std::int64_t RankBuilder::pairs(const RowTable& rows, const std::vector<Segment>& keys) {
  std::int64_t sum = 0;
  for (const Segment& s : keys) sum += rows.pairs(s.positions);
  return sum;
}

QueryRows RankBuilder::rows_of(int group) {
  if (group == ring_index()) return {&rows_, 0};
  const auto g = static_cast<std::size_t>(group);
  const std::int64_t first = visiting_rows_ + rows_.rows();
  visiting_rows_ += plan_.row_tables[g].rows();
  if (detail_ == Detail::items) {
    const std::vector<TokenRange>& rows = plan_.groups[g].rows;
    out_.rows.insert(out_.rows.end(), rows.begin(), rows.end());
  }
  return {&plan_.row_tables[g], first};
}

void RankBuilder::attend(Attend a, const std::vector<Segment>& keys, int step,
                         std::int64_t known_pairs) {
  attend(a, {&rows_, 0}, keys, step, known_pairs);
}

void RankBuilder::attend(Attend a, const QueryRows& queries, const std::vector<Segment>& keys,
                         int step, std::int64_t known_pairs) {
  const RowTable& rows = *queries.table;
  // Backward runs without rows too: it defines dK and dV.
  if (a.heads == 0 || (rows.rows() == 0 && out_.pass == Pass::forward)) return;
  a.pass = out_.pass;
  a.queries = {static_cast<std::int32_t>(out_.segments.size()), 1};
  out_.segments.push_back({-1, 0, {0, rows.rows(), 1}, queries.first_row});
  a.keys = {static_cast<std::int32_t>(out_.segments.size()),
            static_cast<std::int32_t>(keys.size())};
  out_.segments.insert(out_.segments.end(), keys.begin(), keys.end());
  a.pairs = known_pairs < 0 ? pairs(rows, keys) : known_pairs;
  const TileGrid grid{plan_.request.options.tile_q, plan_.request.options.tile_k};
  std::int64_t executed = 0;
  if (a.pairs > 0) {
    std::vector<TokenRange> positions;
    for (const Segment& k : keys) positions.push_back(k.positions);
    executed = rows.tile_pairs(grid, std::move(positions));
  }
  const std::int64_t widths = a.pass == Pass::forward ? dim() + dim_v() : 3 * dim() + 2 * dim_v();
  a.flops = 2 * widths * executed * a.heads * problem().batch;
  out_.attends.push_back(a);
  out_.masked_pairs += a.pairs * a.heads * problem().batch;
  out_.flops += a.flops;
  if (detail_ == Detail::totals) return add(ItemKind::attend, 0, step, {});
  add(ItemKind::attend, out_.attends.size() - 1, step,
      attend_accesses(a, keys, {rows.rows(), dim(), dim_v(), plan_.group_size()}));
}

RankPlan RankBuilder::finish() {
  if (detail_ == Detail::items) add_edges();
  place_slots();
  return std::move(out_);
}

void RankBuilder::add_edges() {
  HazardTracker tracker(out_.slots.size(), out_.items.size());
  std::vector<std::int32_t> same;
  std::vector<std::int32_t> previous;
  // The second round is the next call: what it still waits for lies in the first.
  for (const bool second : {false, true}) {
    for (std::size_t i = 0; i < out_.items.size(); ++i) {
      Item& item = out_.items[i];
      same.clear();
      previous.clear();
      tracker.visit(static_cast<std::int32_t>(i),
                    std::span(out_.accesses)
                        .subspan(static_cast<std::size_t>(item.accesses.begin),
                                 static_cast<std::size_t>(item.accesses.count)),
                    same, previous);
      const std::vector<std::int32_t>& list = second ? previous : same;
      (second ? item.waits_previous : item.waits) = {static_cast<std::int32_t>(out_.edges.size()),
                                                     static_cast<std::int32_t>(list.size())};
      out_.edges.insert(out_.edges.end(), list.begin(), list.end());
    }
    tracker.next_call();
  }
}

void RankBuilder::place_slots() {
  for (std::size_t i = 0; i < out_.items.size(); ++i) {
    const Item& item = out_.items[i];
    for (std::int32_t a = 0; a < item.accesses.count; ++a) {
      const Block& block = out_.accesses[static_cast<std::size_t>(item.accesses.begin + a)].block;
      PlanSlot& slot = out_.slots[static_cast<std::size_t>(block.slot)];
      if (slot.first_item < 0) slot.first_item = static_cast<std::int32_t>(i);
      slot.last_item = static_cast<std::int32_t>(i);
      if (item.kind == ItemKind::transfer && slot.space == Space::private_) {
        slot.space = Space::symmetric;
      }
    }
  }
  for (PlanSlot& slot : out_.slots) {
    if (slot.space == Space::caller) {
      out_.caller_bytes += slot.bytes;
      continue;
    }
    slot.offset = out_.arena_bytes;
    out_.arena_bytes += (slot.bytes + kSlotAlign - 1) / kSlotAlign * kSlotAlign;
  }
}

/// Keeps the arrays' memory for the next item.
void RankBuilder::drop_items() {
  out_.transfers.clear();
  out_.attends.clear();
  out_.merges.clear();
  out_.reduces.clear();
  out_.prepares.clear();
  out_.segments.clear();
}

}  // namespace annulus::attn
