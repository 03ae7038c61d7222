#include <annulus/plan.h>

#include <fmt/format.h>

namespace annulus {
namespace {

std::string_view slot_name(const RankPlan& plan, std::int32_t slot) {
  return slot < 0 ? "nothing" : plan.slots[static_cast<std::size_t>(slot)].name;
}

std::string describe_prepare(const RankPlan& plan, const Prepare& p) {
  switch (p.kind) {
    case PrepareKind::copy:
      return fmt::format("copy {} to {}", slot_name(plan, p.source.slot),
                         slot_name(plan, p.target.slot));
    case PrepareKind::convert:
      return fmt::format("round {} into {}", slot_name(plan, p.source.slot),
                         slot_name(plan, p.target.slot));
    case PrepareKind::zero:
      return fmt::format("zero {}", slot_name(plan, p.target.slot));
    case PrepareKind::row_sums:
      return fmt::format("row sums of {} and {}", slot_name(plan, p.source.slot),
                         slot_name(plan, p.source2.slot));
  }
  return "prepare";
}

std::string describe_payload(const RankPlan& plan, const Item& item) {
  const auto i = static_cast<std::size_t>(item.payload);
  switch (item.kind) {
    case ItemKind::transfer: {
      const Transfer& t = plan.transfers[i];
      return fmt::format("transfer of {} ({} bytes) {} rank {}", slot_name(plan, t.block.slot),
                         t.bytes, t.sends ? "to" : "from", t.peer);
    }
    case ItemKind::attend: {
      const Attend& a = plan.attends[i];
      return fmt::format("attend {} heads {}..{}", name_of(a.pass), a.head, a.head + a.heads - 1);
    }
    case ItemKind::merge:
      return "merge of states";
    case ItemKind::reduce:
      return fmt::format("reduce {} into {}", slot_name(plan, plan.reduces[i].source.slot),
                         slot_name(plan, plan.reduces[i].target.slot));
    case ItemKind::prepare:
      return describe_prepare(plan, plan.prepares[i]);
  }
  return "?";
}

std::span<const std::int32_t> edges_of(const RankPlan& plan, Slice slice) {
  return std::span(plan.edges)
      .subspan(static_cast<std::size_t>(slice.begin), static_cast<std::size_t>(slice.count));
}

}  // namespace

std::span<const std::int32_t> RankPlan::waits(const Item& item) const {
  return edges_of(*this, item.waits);
}

std::span<const std::int32_t> RankPlan::waits_previous(const Item& item) const {
  return edges_of(*this, item.waits_previous);
}

std::string describe(const RankPlan& plan, std::int32_t item) {
  const Item& it = plan.items[static_cast<std::size_t>(item)];
  return fmt::format("rank {} item {}: {} step {}: {}", plan.rank, item, name_of(plan.pass),
                     it.step, describe_payload(plan, it));
}

}  // namespace annulus
