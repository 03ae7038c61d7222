#include "launch/mask/svg.h"

#include <fmt/format.h>

#include <array>
#include <iterator>

namespace annulus::launch {

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        // Control characters are not XML, whatever they are escaped as.
        out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
  }
  return out;
}

Svg::Svg(double width, double height) : width_(width), height_(height) {
  rect({0, 0, width, height}, "#ffffff");
}

void Svg::rect(const Box& b, std::string_view fill, std::string_view hover) {
  fmt::format_to(std::back_inserter(body_),
                 R"(<rect x="{:.6g}" y="{:.6g}" width="{:.6g}" height="{:.6g}" fill="{}")", b.x,
                 b.y, b.width, b.height, fill);
  body_ += hover.empty() ? "/>\n" : fmt::format("><title>{}</title></rect>\n", escaped(hover));
}

void Svg::frame(const Box& b, std::string_view stroke, double width) {
  fmt::format_to(std::back_inserter(body_),
                 R"(<rect x="{:.6g}" y="{:.6g}" width="{:.6g}" height="{:.6g}" fill="none" )"
                 R"(stroke="{}" stroke-width="{:.3g}" pointer-events="none"/>)"
                 "\n",
                 b.x, b.y, b.width, b.height, stroke, width);
}

void Svg::line(double x1, double y1, double x2, double y2, std::string_view stroke, double width) {
  fmt::format_to(std::back_inserter(body_),
                 R"(<line x1="{:.6g}" y1="{:.6g}" x2="{:.6g}" y2="{:.6g}" stroke="{}" )"
                 R"(stroke-width="{:.3g}"/>)"
                 "\n",
                 x1, y1, x2, y2, stroke, width);
}

void Svg::text(double x, double y, std::string_view words, const TextStyle& style) {
  constexpr std::array<const char*, 3> kAnchors{"start", "middle", "end"};
  fmt::format_to(
      std::back_inserter(body_),
      R"(<text x="{:.6g}" y="{:.6g}" font-size="{:.3g}" text-anchor="{}" fill="{}"{}{}>)"
      "{}</text>\n",
      x, y, style.size, kAnchors.at(static_cast<std::size_t>(style.anchor)), style.colour,
      style.bold ? R"( font-weight="600")" : "",
      style.upward ? fmt::format(R"~( transform="rotate(-90 {:.6g} {:.6g})")~", x, y) : "",
      escaped(words));
}

std::string Svg::finish() const {
  return fmt::format(R"(<svg xmlns="http://www.w3.org/2000/svg" width="{0:.0f}" height="{1:.0f}" )"
                     R"(viewBox="0 0 {0:.0f} {1:.0f}" font-family="DejaVu Sans, Helvetica, Arial, )"
                     R"(sans-serif" shape-rendering="crispEdges">)"
                     "\n",
                     width_, height_) +
         body_ + "</svg>\n";
}

}  // namespace annulus::launch
