#include "runtime/cost/trace/rows.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <iterator>
#include <limits>
#include <set>
#include <string_view>
#include <tuple>
#include <utility>

namespace annulus {
namespace {

using nlohmann::ordered_json;
using trace::Drawn;
using trace::Row;
using trace::Rows;

constexpr std::int64_t kBetweenRuns = 100'000;  // ns
constexpr int kCalls = 0;                       // rows: the calls, what computes, the links
constexpr int kCompute = 1;

int thread_of(const Row& row) {
  return row.link ? 2 + 2 * row.peer + (row.sends ? 0 : 1) : kCompute;
}

std::string row_name(int thread) {
  if (thread == kCalls) return "calls";
  if (thread == kCompute) return "compute";
  return fmt::format("link {} rank {}", thread % 2 == 0 ? "to" : "from", thread / 2 - 1);
}

/// Exact, so that events that touch do not overlap by a rounding.
std::string microseconds(std::int64_t ns) { return fmt::format("{}.{:03}", ns / 1000, ns % 1000); }

std::string_view kind_name(ItemKind kind) {
  switch (kind) {
    case ItemKind::transfer:
      return "transfer";
    case ItemKind::attend:
      return "attend";
    case ItemKind::merge:
      return "merge";
    case ItemKind::reduce:
      return "reduce";
    case ItemKind::prepare:
      break;
  }
  return "prepare";
}

class Writer {
 public:
  void run(const TracedRun& run, std::size_t number) {
    std::vector<std::vector<Rows>> calls;
    for (const TracedCall& call : run.calls) calls.push_back(trace::rows_of(call, run.clocks));
    base_ = first_of(run, calls) - cursor_;
    run_ = number;
    for (call_ = 0; call_ < calls.size(); ++call_) {
      for (rank_ = 0; rank_ < calls[call_].size(); ++rank_) {
        call_event(run);
        for (const auto& [row, items] : calls[call_][rank_]) {
          for (const Drawn& d : items) item_event(run.calls[call_].plans[rank_], row, d);
        }
      }
    }
    cursor_ = end_ + kBetweenRuns;
  }

  std::string finish(const ordered_json& other) const {
    std::string events = heads() + fmt::to_string(events_);
    if (!events.empty()) events.resize(events.size() - 2);  // the last comma
    return fmt::format("{{\"displayTimeUnit\":\"ms\",\"otherData\":{},\"traceEvents\":[\n{}\n]}}\n",
                       other.dump(), events);
  }

 private:
  static std::int64_t place(const TracedRun& run, std::size_t rank, double s) {
    return std::llround((s - run.clocks[rank].offset_s) * 1e9);
  }

  static std::int64_t first_of(const TracedRun& run, const std::vector<std::vector<Rows>>& calls) {
    std::int64_t first = std::numeric_limits<std::int64_t>::max();
    for (std::size_t c = 0; c < calls.size(); ++c) {
      for (std::size_t r = 0; r < calls[c].size(); ++r) {
        first = std::min(first, place(run, r, run.calls[c].ranks[r].begin_s));
        for (const auto& [row, items] : calls[c][r]) {
          for (const Drawn& d : items) first = std::min({first, d.begin, d.started});
        }
      }
    }
    return first;
  }

  /// Names of processes and rows, for those that have events.
  std::string heads() const {
    std::string text;
    const auto add = [&](int process, int thread, std::string_view name, const std::string& args) {
      text +=
          fmt::format("{{\"ph\":\"M\",\"pid\":{},\"tid\":{},\"name\":\"{}\",\"args\":{{{}}}}},\n",
                      process, thread, name, args);
    };
    for (const auto& [process, thread] : rows_) {
      if (thread == kCalls) {
        add(process, 0, "process_name", fmt::format("\"name\":\"rank {}\"", process));
        add(process, 0, "process_sort_index", fmt::format("\"sort_index\":{}", process));
      }
      add(process, thread, "thread_name", fmt::format("\"name\":\"{}\"", row_name(thread)));
      add(process, thread, "thread_sort_index", fmt::format("\"sort_index\":{}", thread));
    }
    return text;
  }

  void event(int thread, std::int64_t begin, std::int64_t end, std::string_view kind,
             const std::string& name, const std::string& more) {
    rows_.emplace(static_cast<int>(rank_), thread);
    end_ = std::max(end_, end - base_);
    fmt::format_to(std::back_inserter(events_),
                   "{{\"ph\":\"X\",\"pid\":{},\"tid\":{},\"ts\":{},\"dur\":{},\"cat\":\"{}\","
                   "\"name\":{},\"args\":{{\"run\":{},\"call\":{}{}}}}},\n",
                   rank_, thread, microseconds(begin - base_), microseconds(end - begin), kind,
                   ordered_json(name).dump(), run_, call_, more);
  }

  void call_event(const TracedRun& run) {
    const TracedCall& call = run.calls[call_];
    const std::int64_t begin = place(run, rank_, call.ranks[rank_].begin_s);
    const std::int64_t end = std::max(begin, place(run, rank_, call.ranks[rank_].end_s));
    event(kCalls, begin, end, "call", run.label.empty() ? call.name : call.name + ", " + run.label,
          "");
  }

  void item_event(const RankPlan& plan, const Row& row, const Drawn& d) {
    const Item& item = plan.items[static_cast<std::size_t>(d.item)];
    std::string more = fmt::format(",\"item\":{}", d.item);
    if (row.link) {
      const Transfer& t = plan.transfers[static_cast<std::size_t>(item.payload)];
      more += fmt::format(",\"tag\":{},\"bytes\":{},\"started_us\":{}", t.tag, t.bytes,
                          microseconds(d.started - base_));
      arrow(row, t, d);
    }
    event(thread_of(row), d.begin, d.end, kind_name(item.kind), describe(plan, d.item), more);
  }

  /// From where a transfer starts at its sending end to its end at the receiving one. A slice does
  /// not hold its own end, so the arrow points to just before it.
  void arrow(const Row& row, const Transfer& t, const Drawn& d) {
    const auto mine = static_cast<int>(rank_);
    const std::int64_t at = row.sends ? d.begin : std::max(d.begin, d.end - 1);
    fmt::format_to(std::back_inserter(events_),
                   "{{\"ph\":\"{}\",\"pid\":{},\"tid\":{},\"ts\":{},\"cat\":\"transfer\","
                   "\"name\":\"moves\",\"id\":\"{}.{}.{}.{}.{}\"}},\n",
                   row.sends ? "s" : "f\",\"bp\":\"e", mine, thread_of(row),
                   microseconds(at - base_), run_, call_, row.sends ? mine : row.peer,
                   row.sends ? row.peer : mine, t.tag);
  }

  fmt::memory_buffer events_;
  std::set<std::tuple<int, int>> rows_;  ///< process, thread
  std::size_t run_ = 0, call_ = 0, rank_ = 0;
  std::int64_t base_ = 0;    ///< what is subtracted from a run's times
  std::int64_t cursor_ = 0;  ///< where the next run begins
  std::int64_t end_ = 0;
};

ordered_json waited_inside(const CallTrace& trace) {
  return trace.waited_s ? ordered_json(*trace.waited_s) : ordered_json(nullptr);
}

ordered_json call_json(const TracedCall& call) {
  ordered_json ranks = ordered_json::array();
  for (std::size_t r = 0; r < call.ranks.size(); ++r) {
    const Exposure e = exposure_of(call.plans[r], call.ranks[r]);
    ranks.push_back({{"call_s", e.call_s},
                     {"compute_s", e.compute_s},
                     {"transfer_s", e.transfer_s},
                     {"exposed_s", e.exposed_s},
                     {"idle_s", e.idle_s},
                     {"waits_inside", call.ranks[r].waits_inside},
                     {"waited_inside_s", waited_inside(call.ranks[r])},
                     {"device_clock_error_s", call.ranks[r].clock_error_s}});
  }
  return {{"name", call.name}, {"ranks", ranks}};
}

ordered_json run_json(const TracedRun& run) {
  ordered_json clocks = ordered_json::array();
  for (const ClockOffset& c : run.clocks) {
    clocks.push_back({{"offset_s", c.offset_s}, {"error_s", c.error_s}});
  }
  ordered_json calls = ordered_json::array();
  for (const TracedCall& call : run.calls) calls.push_back(call_json(call));
  return {{"label", run.label}, {"clocks", clocks}, {"calls", calls}};
}

}  // namespace

std::string trace_json(std::span<const TracedRun> runs) {
  Writer writer;
  ordered_json other{{"schema", "annulus.trace/1"}, {"runs", ordered_json::array()}};
  for (std::size_t i = 0; i < runs.size(); ++i) {
    writer.run(runs[i], i);
    other["runs"].push_back(run_json(runs[i]));
  }
  return writer.finish(other);
}

}  // namespace annulus
