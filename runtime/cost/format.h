#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace annulus::cost {

constexpr std::size_t kTextWidth = 110;

/// 1374389534720, "FLOP" -> "1.37 TFLOP"; three digits, powers of 1000.
std::string human(long double value, std::string_view unit);

/// 0.00123 -> "1.23 ms".
std::string duration(double seconds);

using TextRow = std::vector<std::string>;

/// Columns as wide as their widest cell; the first `left` columns lean left, the others right. The
/// first row is the header. Gaps between columns shrink when the table would pass kTextWidth, and
/// then the last column (a rounding of the others) is left out.
std::string table(std::vector<TextRow> rows, std::size_t left);

/// `text` behind a label of 14 columns, broken at spaces.
std::string paragraph(std::string_view label, std::string_view text);

}  // namespace annulus::cost
