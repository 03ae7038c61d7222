#pragma once

#include <string>
#include <string_view>

namespace annulus::launch {

/// What is special in XML, escaped.
std::string escaped(std::string_view text);

struct TextStyle {
  double size = 13;
  std::string_view anchor = "start";  ///< "middle", "end"
  std::string_view colour = "#222";
  bool bold = false;
  double rotate = 0;
};

struct BarStyle {
  std::string_view colour;
  bool hollow = false;
};

/// Collects elements; coordinates are pixels, y downward.
class Svg {
 public:
  Svg(double width, double height);

  void text(double x, double y, std::string_view content, const TextStyle& style = {});
  void line(double x1, double y1, double x2, double y2, std::string_view colour, double width,
            bool dashed = false);
  void bar(double x, double y, double width, double height, const BarStyle& style,
           std::string_view hover);

  std::string finish() const;

 private:
  std::string body_;
};

/// Rough width of `text` in pixels.
double text_width(std::string_view text, double size);

}  // namespace annulus::launch
