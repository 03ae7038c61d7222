#include "runtime/cost/format.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace annulus::cost {
namespace {

std::vector<std::size_t> widths_of(const std::vector<TextRow>& rows) {
  std::vector<std::size_t> widths(rows.front().size(), 0);
  for (const TextRow& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  return widths;
}

std::size_t total_of(const std::vector<std::size_t>& widths, std::size_t gap) {
  return std::accumulate(widths.begin(), widths.end(), gap * (widths.size() - 1));
}

std::string line(const TextRow& row, const std::vector<std::size_t>& widths, std::size_t gap,
                 std::size_t left) {
  std::string text;
  for (std::size_t i = 0; i < row.size(); ++i) {
    if (i != 0) text.append(gap, ' ');
    text += i < left ? fmt::format("{:<{}}", row[i], widths[i])
                     : fmt::format("{:>{}}", row[i], widths[i]);
  }
  text.erase(text.find_last_not_of(' ') + 1);
  return text + "\n";
}

}  // namespace

std::string human(long double value, std::string_view unit) {
  constexpr std::string_view kPrefixes[] = {"", "k", "M", "G", "T", "P", "E", "Z", "Y"};
  std::size_t prefix = 0;
  // 999.5 would print as 1000
  while (std::fabs(value) >= 999.5L && prefix + 1 < std::size(kPrefixes)) {
    value /= 1000;
    ++prefix;
  }
  int digits = 2;
  if (std::fabs(value) >= 99.95L) {
    digits = 0;
  } else if (std::fabs(value) >= 9.995L) {
    digits = 1;
  }
  if (prefix == 0 && value == std::floor(value)) digits = 0;
  return fmt::format("{:.{}f} {}{}", static_cast<double>(value), digits, kPrefixes[prefix], unit);
}

std::string duration(double seconds) {
  if (seconds >= 1) return fmt::format("{:.3g} s", seconds);
  if (seconds >= 1e-3) return fmt::format("{:.3g} ms", seconds * 1e3);
  return fmt::format("{:.3g} us", seconds * 1e6);
}

std::string table(std::vector<TextRow> rows, std::size_t left) {
  std::size_t gap = 2;
  std::vector<std::size_t> widths = widths_of(rows);
  if (total_of(widths, gap) > kTextWidth) gap = 1;
  if (total_of(widths, gap) > kTextWidth) {
    for (TextRow& row : rows) row.pop_back();
    widths.pop_back();
    gap = total_of(widths, 2) > kTextWidth ? 1 : 2;
  }
  std::string text;
  for (const TextRow& row : rows) text += line(row, widths, gap, left);
  return text;
}

std::string paragraph(std::string_view label, std::string_view text) {
  constexpr std::size_t kIndent = 16;
  std::string result = fmt::format("  {:<{}}", label, kIndent - 2);
  std::size_t column = kIndent;
  bool first = true;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(' '), text.size());
    const std::string_view word = text.substr(0, end);
    if (!first && column + 1 + word.size() > kTextWidth) {
      result += "\n" + std::string(kIndent, ' ');
      column = kIndent;
    } else if (!first) {
      result += ' ';
      ++column;
    }
    result += word;
    column += word.size();
    first = false;
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return result + "\n";
}

}  // namespace annulus::cost
