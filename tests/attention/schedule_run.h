#pragma once

#include "attention/execute/schedule.h"

#include <annulus/plan.h>

#include <array>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <vector>

namespace annulus::test {

/// What links between GPUs do: ranks of one host by flags, the others in rounds.
struct Link {
  int ranks_per_host = 1;
  bool pushes = false;  ///< by flags, where a plan does not say: senders move the data

  bool near(int a, int b) const { return a / ranks_per_host == b / ranks_per_host; }
  bool pushed(const Transfer& t) const {
    return t.mover == Mover::link ? pushes : t.mover == Mover::sender;
  }
  std::vector<attn::TransferTraits> traits(const RankPlan& plan) const;
};

/// Plays the schedules of all ranks together, as GPUs would: each lane in order, a step when what
/// it waits for is there. A launch of a round ends when the launches that its peers' ends are in
/// have begun: nothing is buffered. A kernel whose keys arrive while it runs ends when all have.
class ScheduleRun {
 public:
  ScheduleRun(const std::vector<RankPlan>& ranks, const Link& link, bool one_lane);

  /// Empty, or what hangs.
  std::string play();

  /// Empty, or a kernel that waits for keys while rank `late` has not begun.
  std::string spinning_without(int late);

  /// Empty, or an edge of a plan that neither lane order nor events keep.
  std::string unordered_edge() const;

  /// Exchanges the first two launches of a rank.
  void swap_launches(std::size_t rank);

 private:
  using Name = std::tuple<int, int, std::int32_t>;  ///< sender, receiver, tag

  struct Rank {
    const RankPlan* plan = nullptr;
    std::vector<attn::TransferTraits> traits;
    attn::Schedule schedule;
    std::array<std::vector<attn::Step>, 2> lanes;
    std::array<std::size_t, 2> at{};
    std::set<std::int32_t> events;
    std::map<std::int32_t, std::int32_t> arrived{};  ///< by attend: its counter
    std::set<std::int32_t> attended{};               ///< attends that have ended
  };

  void play_all_but(int late);
  /// Of its bundle, does the flag of this one stand for all before, or behind, their move?
  static bool opens(const Rank& rank, std::int32_t t);
  static bool closes(const Rank& rank, std::int32_t t);
  Name name_of(const Rank& rank, std::int32_t transfer) const;
  bool try_step(Rank& rank, std::size_t lane);
  bool try_transfer(Rank& rank, std::int32_t transfer);
  bool try_compute(Rank& rank, std::int32_t item);
  bool try_sources(const Rank& rank, const attn::Step& step);
  bool try_round(Rank& rank, std::int32_t end);
  bool try_await(const Rank& rank, const attn::Step& step);

  Link link_;
  std::vector<Rank> ranks_;
  std::set<Name> raised_;                   ///< flags of the ends that move nothing
  std::set<Name> answered_;                 ///< and what the other ends said when they had moved it
  std::set<std::tuple<int, Name>> posted_;  ///< ends of rounds that were begun, by rank
};

}  // namespace annulus::test
