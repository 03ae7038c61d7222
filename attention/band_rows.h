#pragma once

#include "attention/bands.h"

#include <functional>
#include <span>
#include <unordered_map>
#include <vector>

namespace annulus::attn {

/// The runs of keys that hold each segment id. Negative ids have none.
class SegmentKeys {
 public:
  explicit SegmentKeys(const Mask::Segments& segments);

  std::span<const KeyInterval> of(std::int64_t id) const;
  /// No id has more than one run.
  bool one_run_each() const { return one_run_each_; }

 private:
  std::unordered_map<std::int64_t, std::vector<KeyInterval>> runs_;
  bool one_run_each_ = true;
};

/// What a term lets a query see: ascending, disjoint; empty ones and touching ones may be among
/// them. The term must outlive it.
using RowKeys = std::function<std::span<const KeyInterval>(std::int64_t query)>;

/// Of a term that is met row by row; empty for those that are bands of one interval.
RowKeys row_keys_of(const Mask::Term& term);

/// Cuts bands of at most one interval to what every one of the terms allows. All of them together,
/// so that fixed keys are held only where a row sees more than two intervals in the end.
std::vector<Band> cut_rows(const std::vector<Band>& bands, const std::vector<RowKeys>& terms);

}  // namespace annulus::attn
