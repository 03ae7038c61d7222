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
