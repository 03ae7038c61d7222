#include "attention/execute/arrivals.h"

#include "attention/kernels/params.h"

#include <algorithm>

namespace annulus::attn {
namespace {

/// Entries of one segment that a block of its slot covers, and how they are raised.
class Table {
 public:
  Table(const Segment& segment, std::int32_t heads)
      : segment_(segment),
        blocks_(arrival_blocks(segment.positions.count)),
        needed_(static_cast<std::size_t>(blocks_ * heads), 0) {}

  /// `block` is there once `count` transfers are over; its heads, as the table counts them.
  void raise(const Block& block, std::int32_t first, std::int32_t last, std::uint32_t count) {
    const std::int64_t end = segment_.token + segment_.positions.count;
    // Tokens of the block from the first that is not before the segment.
    const std::int64_t skipped =
        std::max<std::int64_t>(0, segment_.token - block.token + block.token_step - 1) /
        block.token_step;
    std::int64_t done = -1;  // entry
    for (std::int64_t j = skipped; j < block.tokens; ++j) {
      const std::int64_t token = block.token + j * block.token_step;
      if (token >= end) return;
      const std::int64_t entry = (token - segment_.token) / kArrivalBlock;
      if (entry == done) continue;
      done = entry;
      for (std::int32_t h = first; h < last; ++h) {
        std::uint32_t& needed = needed_[static_cast<std::size_t>(h * blocks_ + entry)];
        needed = std::max(needed, count);
      }
    }
  }

  std::vector<std::uint32_t> take() { return std::move(needed_); }

 private:
  const Segment& segment_;
  std::int64_t blocks_;
  std::vector<std::uint32_t> needed_;
};

}  // namespace

std::vector<std::int32_t> arrivals_of(const RankPlan& plan, const Item& item) {
  std::vector<std::int32_t> arrivals;
  if (item.kind != ItemKind::attend) return arrivals;
  const Attend& a = plan.attends[static_cast<std::size_t>(item.payload)];
  if (!a.on_arrival) return arrivals;
  for (const std::int32_t w : plan.waits(item)) {
    const Item& from = plan.items[static_cast<std::size_t>(w)];
    if (from.kind != ItemKind::transfer) continue;
    const Transfer& t = plan.transfers[static_cast<std::size_t>(from.payload)];
    if (!t.sends && (t.block.slot == a.k.slot || t.block.slot == a.v.slot)) {
      arrivals.push_back(from.payload);
    }
  }
  std::sort(arrivals.begin(), arrivals.end());  // transfers are numbered as their items stand
  return arrivals;
}

HeadSpan heads_sent(const RankPlan& plan, const Item& item, const Item& from) {
  if (item.kind != ItemKind::transfer || from.kind != ItemKind::attend) return {};
  const Transfer& t = plan.transfers[static_cast<std::size_t>(item.payload)];
  const Attend& a = plan.attends[static_cast<std::size_t>(from.payload)];
  if (!t.sends || !a.by_head || t.block.slot != a.dk.slot) return {};
  for (std::int32_t i = 0; i < from.accesses.count; ++i) {
    const Access& access = plan.accesses[static_cast<std::size_t>(from.accesses.begin + i)];
    if (access.block.slot != a.dk.slot || access.mode == AccessMode::read) continue;
    const std::int32_t first = t.block.head - access.block.head;
    return {from.payload, first, first + t.block.heads};
  }
  return {};
}

HeadSpan heads_sent(const RankPlan& plan, const Item& item) {
  for (const std::int32_t w : plan.waits(item)) {
    const HeadSpan heads = heads_sent(plan, item, plan.items[static_cast<std::size_t>(w)]);
    if (heads.attend >= 0) return heads;
  }
  return {};
}

std::vector<std::vector<std::uint32_t>> arrivals_needed(const RankPlan& plan, const Attend& attend,
                                                        std::int32_t kv_head, std::int32_t kv_heads,
                                                        const std::vector<std::int32_t>& arrivals) {
  std::vector<std::vector<std::uint32_t>> all;
  const std::int32_t origin = kv_head - attend.k.head_origin;  // slot's head of table row 0
  for (std::int32_t i = 0; i < attend.keys.count; ++i) {
    Table table(plan.segments[static_cast<std::size_t>(attend.keys.begin + i)], kv_heads);
    std::uint32_t count = 0;
    for (const std::int32_t t : arrivals) {
      const Block& block = plan.transfers[static_cast<std::size_t>(t)].block;
      table.raise(block, std::max(0, block.head - origin),
                  std::min(kv_heads, block.head + block.heads - origin), ++count);
    }
    all.push_back(table.take());
  }
  return all;
}

}  // namespace annulus::attn
