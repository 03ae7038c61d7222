#include "attention/execute/schedule_events.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

namespace annulus::attn {
namespace {

std::size_t index(Lane lane) { return static_cast<std::size_t>(lane); }

}  // namespace

void number_events(Schedule& schedule) {
  std::array<std::map<std::int32_t, std::int32_t>, 2> events;  // by lane: mark -> event
  for (const Step& s : schedule.steps) {
    if (s.kind == Step::Kind::wait) events[index(other(s.lane))].try_emplace(s.index, 0);
  }
  for (auto& lane : events) {
    for (auto& [mark, event] : lane) event = schedule.events++;
  }
  std::vector<Step> steps;
  std::vector<Step> records;  // all on one lane
  const auto flush = [&] {
    steps.insert(steps.end(), records.begin(), records.end());
    records.clear();
  };
  std::array<std::int32_t, 2> counts{};
  for (Step s : schedule.steps) {
    if (s.kind == Step::Kind::wait) s.index = events[index(other(s.lane))].at(s.index);
    const bool joins =
        s.kind == Step::Kind::raise && !records.empty() && records.front().lane == s.lane;
    if (!joins) flush();
    steps.push_back(s);
    const auto event = events[index(s.lane)].find(counts[index(s.lane)]++);
    if (event != events[index(s.lane)].end()) {
      records.push_back({Step::Kind::record, s.lane, event->second, 1});
    }
  }
  flush();
  schedule.steps = std::move(steps);
}

}  // namespace annulus::attn
