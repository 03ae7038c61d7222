#pragma once

#include "runtime/cost/count.h"

#include <annulus/latency.h>

#include <utility>
#include <vector>

namespace annulus::cost {

/// Where activations live.
enum class Place : std::uint8_t { off_chip, input_on_chip, output_on_chip, both_on_chip };

/// Operator rows of one rank, in GenZ's order; `batch` sequences pass each.
class RowList {
 public:
  explicit RowList(std::int64_t batch) : batch_(batch) {}

  void gemm(const char* name, std::int64_t out, std::int64_t tokens, std::int64_t in, Place place,
            std::int64_t repeat) {
    OperatorRow row;
    row.name = name;
    row.repeat = repeat;
    row.macs = product({batch_, tokens, in, out});
    row.input_elements = product({batch_, tokens, in});
    row.weight_elements = times(in, out);
    row.output_elements = product({batch_, tokens, out});
    put(std::move(row), place);
  }

  void sync(const char* name, Collective collective, std::int64_t ranks, std::int64_t tokens,
            std::int64_t width, std::int64_t repeat) {
    OperatorRow row;
    row.name = name;
    row.kind = OperatorKind::sync;
    row.repeat = repeat;
    row.collective = collective;
    row.ranks = ranks;
    row.sent_elements = product({batch_, tokens, width});
    rows_.push_back(std::move(row));
  }

  void put(OperatorRow row, Place place) {
    row.input_on_chip = place == Place::input_on_chip || place == Place::both_on_chip;
    row.output_on_chip = place == Place::output_on_chip || place == Place::both_on_chip;
    rows_.push_back(std::move(row));
  }

  std::vector<OperatorRow> take() { return std::move(rows_); }

 private:
  std::int64_t batch_;
  std::vector<OperatorRow> rows_;
};

/// The FFN of `layers` layers of one kind, for `tokens` tokens of a sequence; `step` are those of
/// the whole step, before sp divides them.
void add_ffn(const LatencyRequest& request, LayerKind kind, std::int64_t tokens, std::int64_t step,
             std::int64_t layers, RowList& rows);

}  // namespace annulus::cost
