#include "attention/execute/step_samples.h"

#include <cstddef>

namespace annulus::attn {
namespace {

/// Of each transfer: the item that it is.
std::vector<std::size_t> items_of_transfers(const RankPlan& plan) {
  std::vector<std::size_t> items(plan.transfers.size());
  for (std::size_t i = 0; i < plan.items.size(); ++i) {
    const Item& item = plan.items[i];
    if (item.kind == ItemKind::transfer) items[static_cast<std::size_t>(item.payload)] = i;
  }
  return items;
}

}  // namespace

std::vector<ItemSample> item_samples(const RankPlan& plan,
                                     const std::vector<TransferTraits>& traits,
                                     const Schedule& schedule, std::span<const StepTime> times) {
  const std::vector<std::size_t> items = items_of_transfers(plan);
  std::vector<ItemSample> samples(plan.items.size());
  for (std::size_t i = 0; i < samples.size(); ++i) samples[i].item = static_cast<std::int32_t>(i);
  const auto started = [&](std::size_t item, const StepTime& t) {
    samples[item].begin_s = samples[item].await_s = t.begin_s;
    samples[item].end_s = t.end_s;
  };
  for (std::size_t s = 0; s < schedule.steps.size(); ++s) {
    const Step& step = schedule.steps[s];
    const auto index = static_cast<std::size_t>(step.index);
    switch (step.kind) {
      case Step::Kind::compute:
        started(index, times[s]);
        break;
      case Step::Kind::transfer:
        for (std::size_t t = 0; t < traits.size(); ++t) {
          if (traits[t].group_end == step.index) started(items[t], times[s]);
        }
        break;
      case Step::Kind::await_over:
        for (std::size_t a = index; a < index + static_cast<std::size_t>(step.count); ++a) {
          ItemSample& sample = samples[items[static_cast<std::size_t>(schedule.awaited[a])]];
          sample.by_flag = true;
          sample.await_s = times[s].begin_s;
          sample.end_s = times[s].end_s;
        }
        break;
      case Step::Kind::record:
      case Step::Kind::wait:
        break;
    }
  }
  return samples;
}

}  // namespace annulus::attn
