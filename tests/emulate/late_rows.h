#pragma once

#include "attention/kernels/params.h"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace annulus::testing {

/// Some tokens of some query heads.
struct RowPart {
  std::int64_t token = 0;
  std::int64_t count = 0;
  std::int64_t head = 0;
  std::int64_t heads = 0;
};

/// Q, dO, LSE and row sums that come while a backward runs: until a part has arrived, it is NaN.
class LateRows {
 public:
  explicit LateRows(std::vector<RowPart> parts) : parts_(std::move(parts)), kept_(parts_.size()) {}

  /// Keeps what the launch reads of the parts, and puts NaN in its place.
  void hide(const attn::BackwardParams& params);
  void arrive(std::size_t part);

 private:
  template <typename Fn>
  void for_each_row(const RowPart& part, Fn&& fn) const;

  std::vector<RowPart> parts_;
  std::vector<std::vector<std::byte>> kept_;
  attn::BackwardParams params_{};
};

}  // namespace annulus::testing
