#include <annulus/error.h>
#include <annulus/problem.h>

#include <fmt/format.h>

#include <utility>

namespace annulus {
namespace {

template <typename T>
Mask::Term term(T value) {
  return Mask::Term(std::move(value));
}

struct TermName {
  std::string operator()(const Mask::Causal&) const { return "causal"; }
  std::string operator()(const Mask::Window&) const { return "window"; }
  std::string operator()(const Mask::Documents&) const { return "documents"; }
  std::string operator()(const Mask::Prefix&) const { return "prefix"; }
  std::string operator()(const Mask::Rows&) const { return "custom"; }
  std::string operator()(const Mask::Lists&) const { return "custom"; }
  std::string operator()(const Mask::Segments&) const { return "segments"; }
};

}  // namespace

Mask Mask::full() { return {}; }

Mask Mask::causal(CausalAlign align) {
  Mask mask;
  mask.terms_.push_back(term(Causal{align}));
  return mask;
}

Mask Mask::window(std::int64_t left, std::int64_t right, CausalAlign align) {
  if (left < -1 || right < -1) {
    throw InvalidArgument(
        fmt::format("window {}, {}: widths are >= 0, or -1 for unbounded", left, right));
  }
  Mask mask;
  mask.terms_.push_back(term(Window{left, right, align}));
  return mask;
}

Mask Mask::documents(std::vector<std::int64_t> lengths, bool causal) {
  for (const std::int64_t length : lengths) {
    if (length < 0) throw InvalidArgument(fmt::format("document length {}: must be >= 0", length));
  }
  Mask mask;
  mask.terms_.push_back(term(Documents{std::move(lengths), causal}));
  return mask;
}

Mask Mask::documents_from_cu_seqlens(std::span<const std::int32_t> cu_seqlens, bool causal) {
  if (cu_seqlens.empty() || cu_seqlens[0] != 0) {
    throw InvalidArgument("cu_seqlens: must start with 0");
  }
  std::vector<std::int64_t> lengths;
  for (std::size_t i = 1; i < cu_seqlens.size(); ++i) {
    lengths.push_back(std::int64_t{cu_seqlens[i]} - cu_seqlens[i - 1]);
  }
  return documents(std::move(lengths), causal);
}

Mask Mask::prefix(std::int64_t length, CausalAlign align) {
  if (length < 0) throw InvalidArgument(fmt::format("prefix length {}: must be >= 0", length));
  Mask mask;
  mask.terms_.push_back(term(Prefix{length, align}));
  return mask;
}

Mask Mask::rows(std::vector<RowIntervals> intervals) {
  Mask mask;
  mask.terms_.push_back(term(Rows{std::move(intervals)}));
  return mask;
}

Mask Mask::lists(KeyLists intervals) {
  Mask mask;
  mask.terms_.push_back(term(Lists{std::make_shared<const KeyLists>(std::move(intervals))}));
  return mask;
}

Mask Mask::dense(std::span<const std::uint8_t> allowed, std::int64_t seq) {
  const auto size = static_cast<std::int64_t>(allowed.size());
  if (seq < 1 || size % seq != 0) {
    throw InvalidArgument(
        fmt::format("mask of {} entries: must be a multiple of seq {}", size, seq));
  }
  const std::int64_t seq_kv = size / seq;
  KeyLists rows;
  std::vector<KeyInterval> runs;
  for (std::int64_t i = 0; i < seq; ++i) {
    runs.clear();
    const std::uint8_t* row = allowed.data() + i * seq_kv;
    for (std::int64_t j = 0; j < seq_kv; ++j) {
      if (row[j] == 0) continue;
      if (runs.empty() || runs.back().end != j) runs.push_back({j, j});
      ++runs.back().end;
    }
    rows.add_row(runs);
  }
  return Mask::lists(std::move(rows));
}

Mask Mask::segments(std::vector<std::int64_t> ids, std::vector<std::int64_t> ids_kv) {
  Mask mask;
  mask.terms_.push_back(term(Segments{std::move(ids), std::move(ids_kv)}));
  return mask;
}

Mask operator&(const Mask& a, const Mask& b) {
  Mask both = a;
  both.terms_.insert(both.terms_.end(), b.terms_.begin(), b.terms_.end());
  return both;
}

std::string Mask::name() const {
  if (terms_.empty()) return "full";
  std::string text;
  for (const Term& t : terms_) {
    if (!text.empty()) text += '+';
    text += std::visit(TermName{}, t);
  }
  return text;
}

}  // namespace annulus
