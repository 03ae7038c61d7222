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
  bool halo = false;  ///< white around the letters, to be read over lines
};

struct BarStyle {
  std::string_view colour;
  bool hollow = false;
};

struct Box {
  double x = 0, y = 0, width = 0, height = 0;
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

  /// A plain area; neighbours leave no seam where their edges are whole pixels.
  void cell(const Box& box, std::string_view colour, std::string_view hover = {});
  void frame(const Box& box, std::string_view colour, double width);

  std::string finish() const;

 private:
  std::string body_;
};

/// Rough width of `text` in pixels.
double text_width(std::string_view text, double size);

}  // namespace annulus::launch
