#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace annulus::launch {

/// Text as an element or attribute may hold it.
std::string escaped(std::string_view text);

/// Where text hangs on its point.
enum class Anchor : std::uint8_t { start, middle, end };

struct TextStyle {
  double size = 12;
  Anchor anchor = Anchor::start;
  std::string_view colour = "#24292f";
  bool bold = false;
  bool upward = false;  ///< turned by 90 degrees
};

struct Box {
  double x = 0, y = 0, width = 0, height = 0;
};

/// Builds an SVG picture; coordinates are pixels.
class Svg {
 public:
  Svg(double width, double height);

  void rect(const Box& box, std::string_view fill, std::string_view hover = {});
  void frame(const Box& box, std::string_view stroke, double width);
  void line(double x1, double y1, double x2, double y2, std::string_view stroke, double width);
  void text(double x, double y, std::string_view words, const TextStyle& style);

  /// The whole file.
  std::string finish() const;

 private:
  double width_, height_;
  std::string body_;
};

}  // namespace annulus::launch
