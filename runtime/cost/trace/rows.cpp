#include "runtime/cost/trace/rows.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <tuple>

namespace annulus::trace {
namespace {

/// A transfer, whichever end it is seen from.
using Name = std::tuple<int, int, std::int32_t>;  ///< sender, receiver, tag

Name name_of(int rank, const Transfer& t) {
  return t.sends ? Name{rank, t.peer, t.tag} : Name{t.peer, rank, t.tag};
}

const Transfer* transfer_of(const RankPlan& plan, std::int32_t item) {
  const Item& it = plan.items[static_cast<std::size_t>(item)];
  if (it.kind != ItemKind::transfer) return nullptr;
  return &plan.transfers[static_cast<std::size_t>(it.payload)];
}

/// Each from when the one before it was over: of a link's transfers that are under way together,
/// which end in turn, the time of one is what it adds.
void line_up(std::vector<Drawn>& row) {
  std::ranges::sort(row, {}, [](const Drawn& d) { return std::tuple(d.end, d.begin, d.item); });
  std::int64_t over = row.empty() ? 0 : row.front().begin;
  for (Drawn& d : row) {
    d.begin = std::max(d.begin, over);
    d.end = std::max(d.end, d.begin);
    over = d.end;
  }
}

class Drawing {
 public:
  Drawing(const TracedCall& call, std::span<const ClockOffset> clocks)
      : call_(call), clocks_(clocks), rows_(call.ranks.size()) {}

  std::vector<Rows> all() {
    for (std::size_t r = 0; r < rows_.size(); ++r) draw_own(r);
    for (Rows& rows : rows_) {
      for (auto& [row, items] : rows) line_up(items);
    }
    for (std::size_t r = 0; r < rows_.size(); ++r) remember(r);
    for (std::size_t r = 0; r < rows_.size(); ++r) draw_flags(r);
    return std::move(rows_);
  }

 private:
  std::int64_t nanoseconds(std::size_t rank, double s) const {
    return std::llround((s - clocks_[rank].offset_s) * 1e9);
  }

  Drawn drawn(std::size_t rank, const ItemSample& s) const {
    const std::int64_t begin = nanoseconds(rank, s.begin_s);
    return {s.item, begin, std::max(begin, nanoseconds(rank, s.end_s)), begin};
  }

  void draw_own(std::size_t r) {
    for (const ItemSample& s : call_.ranks[r].samples) {
      const Transfer* t = transfer_of(call_.plans[r], s.item);
      if (t != nullptr && s.by_flag) continue;
      const Row row = t == nullptr ? Row{} : Row{true, t->peer, t->sends};
      rows_[r][row].push_back(drawn(r, s));
    }
  }

  /// Where the ends that move data are.
  void remember(std::size_t r) {
    for (const auto& [row, items] : rows_[r]) {
      if (!row.link) continue;
      for (const Drawn& d : items) {
        moved_[name_of(static_cast<int>(r), *transfer_of(call_.plans[r], d.item))] = d;
      }
    }
  }

  void draw_flags(std::size_t r) {
    Rows flags;
    for (const ItemSample& s : call_.ranks[r].samples) {
      const Transfer* t = transfer_of(call_.plans[r], s.item);
      if (t == nullptr || !s.by_flag) continue;
      Drawn mine = drawn(r, s);
      const auto other = moved_.find(name_of(static_cast<int>(r), *t));
      if (other != moved_.end()) {
        mine.begin = other->second.begin;
        mine.end = other->second.end;
      }
      flags[{true, t->peer, t->sends}].push_back(mine);
    }
    for (auto& [row, items] : flags) {
      std::vector<Drawn>& all = rows_[r][row];
      all.insert(all.end(), items.begin(), items.end());
      line_up(all);
    }
  }

  const TracedCall& call_;
  std::span<const ClockOffset> clocks_;
  std::vector<Rows> rows_;
  std::map<Name, Drawn> moved_;
};

}  // namespace

std::vector<Rows> rows_of(const TracedCall& call, std::span<const ClockOffset> clocks) {
  return Drawing(call, clocks).all();
}

}  // namespace annulus::trace
