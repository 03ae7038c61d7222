#include "attention/execute/step_samples.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

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

class Sampler {
 public:
  Sampler(const RankPlan& plan, const std::vector<TransferTraits>& traits, const Schedule& schedule)
      : traits_(traits),
        schedule_(schedule),
        items_(items_of_transfers(plan)),
        samples_(plan.items.size()) {
    for (std::size_t i = 0; i < samples_.size(); ++i) {
      samples_[i].item = static_cast<std::int32_t>(i);
    }
  }

  void take(const Step& step, const StepTime& time) {
    switch (step.kind) {
      case Step::Kind::compute:
        begin(samples_[static_cast<std::size_t>(step.index)], time.begin_s, time.end_s);
        break;
      case Step::Kind::transfer:
        for (std::size_t t = 0; t < traits_.size(); ++t) {
          if (traits_[t].group_end == step.index) begin(samples_[items_[t]], time);
        }
        break;
      case Step::Kind::raise:
        for (std::int32_t i = 0; i < step.count; ++i) begin(of(schedule_.raised, step, i), time);
        break;
      case Step::Kind::await_over:
        for (std::int32_t i = 0; i < step.count; ++i) {
          heard(schedule_.awaited[static_cast<std::size_t>(step.index + i)], time);
        }
        break;
      case Step::Kind::sources:
        sources_ = time.begin_s;
        awaited_ = true;
        break;
      case Step::Kind::move:
        begin(samples_[items_[static_cast<std::size_t>(step.index)]],
              awaited_ ? sources_ : time.begin_s, time.end_s);
        awaited_ = false;
        break;
      case Step::Kind::arrived:
      case Step::Kind::release:
      case Step::Kind::departed:
      case Step::Kind::begun:
      case Step::Kind::record:
      case Step::Kind::wait:
        break;
    }
  }

  std::vector<ItemSample> samples() { return std::move(samples_); }

 private:
  static void begin(ItemSample& sample, double begin_s, double end_s) {
    sample.begin_s = sample.await_s = begin_s;
    sample.end_s = end_s;
  }
  static void begin(ItemSample& sample, const StepTime& time) {
    begin(sample, time.begin_s, time.end_s);
  }

  /// Transfer t is over, by flag, and those of its bundle that it speaks for.
  void heard(std::int32_t t, const StepTime& time) {
    for (std::size_t i = 0; i < traits_.size(); ++i) {
      const auto own = static_cast<std::int32_t>(i);
      const bool spoken = traits_[i].by_flag && traits_[i].closer == t;
      if (own != t && !spoken) continue;
      ItemSample& sample = samples_[items_[i]];
      sample.by_flag = true;
      sample.await_s = time.begin_s;
      sample.end_s = time.end_s;
    }
  }

  /// Of a step's i-th transfer in a list of the schedule.
  ItemSample& of(const std::vector<std::int32_t>& list, const Step& step, std::int32_t i) {
    const std::int32_t transfer = list[static_cast<std::size_t>(step.index + i)];
    return samples_[items_[static_cast<std::size_t>(transfer)]];
  }

  const std::vector<TransferTraits>& traits_;
  const Schedule& schedule_;
  std::vector<std::size_t> items_;
  std::vector<ItemSample> samples_;
  double sources_ = 0;  ///< since when transfers that move next are waited for
  bool awaited_ = false;
};

}  // namespace

std::vector<ItemSample> item_samples(const RankPlan& plan,
                                     const std::vector<TransferTraits>& traits,
                                     const Schedule& schedule, std::span<const StepTime> times) {
  Sampler sampler(plan, traits, schedule);
  for (std::size_t s = 0; s < schedule.steps.size(); ++s) sampler.take(schedule.steps[s], times[s]);
  return sampler.samples();
}

bool waits_inside(const Schedule& schedule) {
  return std::ranges::any_of(schedule.steps, [](const Step& s) {
    return s.kind == Step::Kind::arrived && s.lane == Lane::copy;
  });
}

}  // namespace annulus::attn
