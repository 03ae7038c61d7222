#pragma once

#include <annulus/export.h>
#include <annulus/key_lists.h>
#include <annulus/tensor.h>

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

namespace annulus {

/// Where a causal diagonal (or window) sits when seq_kv != seq: bottom_right adds seq_kv - seq to
/// the query's position.
enum class CausalAlign : std::uint8_t { bottom_right, top_left };

/// Up to two disjoint intervals for one query row, ascending; empty ones are {0, 0}.
using RowIntervals = std::array<KeyInterval, 2>;

/// A mask is a function of global positions: may query row i see key j? Terms are joined by `&`:
/// all of them must allow. The same mask holds for every batch element and head.
class ANNULUS_API Mask {
 public:
  struct Causal {
    CausalAlign align = CausalAlign::bottom_right;
    bool operator==(const Causal&) const = default;
  };
  /// i - left <= j <= i + right (i shifted by `align`); -1 is unbounded.
  struct Window {
    std::int64_t left = -1;
    std::int64_t right = 0;
    CausalAlign align = CausalAlign::bottom_right;
    bool operator==(const Window&) const = default;
  };
  /// Packed documents: a query sees keys of its own document only, and with `causal` none after
  /// itself. Lengths sum to seq = seq_kv; 0 is allowed.
  struct Documents {
    std::vector<std::int64_t> lengths;
    bool causal = true;
    bool operator==(const Documents&) const = default;
  };
  /// j < length, or causal.
  struct Prefix {
    std::int64_t length = 0;
    CausalAlign align = CausalAlign::bottom_right;
    bool operator==(const Prefix&) const = default;
  };
  /// Given row by row, one entry for each of the seq query rows.
  struct Rows {
    std::vector<RowIntervals> intervals;
    bool operator==(const Rows&) const = default;
  };
  /// The same with any number of intervals a row. Shared, since it may be large.
  struct Lists {
    std::shared_ptr<const KeyLists> rows;
    bool operator==(const Lists& other) const {
      return rows == other.rows || (rows && other.rows && *rows == *other.rows);
    }
  };
  /// A query sees the keys whose segment id is its own; ids may come back anywhere. Negative ids
  /// are padding, which sees nothing and is seen by nothing.
  struct Segments {
    std::vector<std::int64_t> ids;     ///< one a query
    std::vector<std::int64_t> ids_kv;  ///< one a key; empty: those of the queries
    bool operator==(const Segments&) const = default;
  };
  using Term = std::variant<Causal, Window, Documents, Prefix, Rows, Lists, Segments>;

  static Mask full();
  static Mask causal(CausalAlign align = CausalAlign::bottom_right);
  static Mask window(std::int64_t left, std::int64_t right = 0,
                     CausalAlign align = CausalAlign::bottom_right);
  static Mask documents(std::vector<std::int64_t> lengths, bool causal = true);
  /// cu_seqlens: 0, then the running sum of the lengths.
  static Mask documents_from_cu_seqlens(std::span<const std::int32_t> cu_seqlens,
                                        bool causal = true);
  static Mask prefix(std::int64_t length, CausalAlign align = CausalAlign::bottom_right);
  static Mask rows(std::vector<RowIntervals> intervals);
  static Mask lists(KeyLists intervals);
  /// Row-major [seq, seq_kv], seq_kv = allowed.size() / seq: nonzero where query i may see key j.
  static Mask dense(std::span<const std::uint8_t> allowed, std::int64_t seq);
  static Mask segments(std::vector<std::int64_t> ids, std::vector<std::int64_t> ids_kv = {});

  /// Both must allow.
  friend ANNULUS_API Mask operator&(const Mask& a, const Mask& b);

  /// No term: the full mask.
  const std::vector<Term>& terms() const { return terms_; }

  /// "causal+documents", in the words of the configuration key `mask`.
  std::string name() const;

  bool operator==(const Mask&) const = default;

 private:
  std::vector<Term> terms_;
};

/// What is to be computed, globally: out = softmax(softmax_scale * q k^T, masked) v.
/// q, out: [batch, seq, heads, head_dim(_v)]; k, v: [batch, seq_kv, heads_kv, head_dim(_v)].
/// Query head h reads key/value head h / (heads / heads_kv). Unset fields take their defaults in
/// `resolved()`.
struct Problem {
  std::int64_t batch = 1;
  std::int64_t seq = 0;
  std::optional<std::int64_t> seq_kv{};  ///< default: seq
  std::int64_t heads = 1;
  std::optional<std::int64_t> heads_kv{};  ///< default: heads
  std::int64_t head_dim = 64;
  std::optional<std::int64_t> head_dim_v{};  ///< default: head_dim
  DType dtype = DType::f32;
  Mask mask = Mask::causal();
  double softcap = 0.0;  ///< 0: off; else scores become softcap * tanh(s / softcap)
  std::optional<double> softmax_scale{};  ///< default: 1 / sqrt(head_dim)
};

/// `problem` with every default filled in. Throws InvalidArgument, with the values, on a size that
/// cannot be, heads that are no multiple of heads_kv, or document lengths, segment ids or mask rows
/// that do not fit seq and seq_kv.
ANNULUS_API Problem resolved(const Problem& problem);

}  // namespace annulus
