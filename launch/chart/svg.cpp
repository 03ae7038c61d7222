#include "launch/chart/svg.h"

#include <fmt/format.h>

#include <iterator>

namespace annulus::launch {

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '&':
        out += "&amp;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        // Control characters are no XML, whatever they are escaped as.
        out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
  }
  return out;
}

Svg::Svg(double width, double height)
    : body_(
          fmt::format("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:g}\" height=\"{1:g}\" "
                      "viewBox=\"0 0 {0:g} {1:g}\" font-family=\"Inter, 'Segoe UI', 'DejaVu Sans', "
                      "sans-serif\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
                      width, height)) {}

void Svg::text(double x, double y, std::string_view content, const TextStyle& style) {
  const std::string turn =
      style.rotate == 0
          ? ""
          : fmt::format(" transform=\"rotate({:g} {:.1f} {:.1f})\"", style.rotate, x, y);
  fmt::format_to(std::back_inserter(body_),
                 "<text x=\"{:.1f}\" y=\"{:.1f}\" font-size=\"{:g}\" text-anchor=\"{}\" "
                 "fill=\"{}\"{}{}{}>{}</text>\n",
                 x, y, style.size, style.anchor, style.colour,
                 style.bold ? " font-weight=\"600\"" : "",
                 style.halo ? " paint-order=\"stroke\" stroke=\"#fff\" stroke-width=\"3\"" : "",
                 turn, escaped(content));
}

void Svg::line(double x1, double y1, double x2, double y2, std::string_view colour, double width,
               bool dashed) {
  fmt::format_to(std::back_inserter(body_),
                 "<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"{}\" "
                 "stroke-width=\"{:g}\"{}/>\n",
                 x1, y1, x2, y2, colour, width, dashed ? " stroke-dasharray=\"6 4\"" : "");
}

void Svg::bar(double x, double y, double width, double height, const BarStyle& style,
              std::string_view hover) {
  const std::string look = style.hollow ? fmt::format(
                                              "fill=\"{0}\" fill-opacity=\"0.16\" stroke=\"{0}\" "
                                              "stroke-width=\"1.6\" stroke-dasharray=\"4 2.5\"",
                                              style.colour)
                                        : fmt::format("fill=\"{}\"", style.colour);
  fmt::format_to(std::back_inserter(body_),
                 "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" rx=\"1.5\" "
                 "{}><title>{}</title></rect>\n",
                 x, y, width, height, look, escaped(hover));
}

void Svg::cell(const Box& b, std::string_view colour, std::string_view hover) {
  fmt::format_to(std::back_inserter(body_),
                 R"(<rect x="{:.6g}" y="{:.6g}" width="{:.6g}" height="{:.6g}" fill="{}")", b.x,
                 b.y, b.width, b.height, colour);
  body_ += hover.empty() ? "/>\n" : fmt::format("><title>{}</title></rect>\n", escaped(hover));
}

void Svg::frame(const Box& b, std::string_view colour, double width) {
  fmt::format_to(std::back_inserter(body_),
                 R"(<rect x="{:.6g}" y="{:.6g}" width="{:.6g}" height="{:.6g}" fill="none" )"
                 R"(stroke="{}" stroke-width="{:g}" pointer-events="none"/>)"
                 "\n",
                 b.x, b.y, b.width, b.height, colour, width);
}

std::string Svg::finish() const { return body_ + "</svg>\n"; }

double text_width(std::string_view text, double size) {
  return 0.56 * size * static_cast<double>(text.size());
}

}  // namespace annulus::launch
