#include "launch/mask/picture.h"

#include "launch/mask/owners.h"
#include "launch/chart/svg.h"

#include <annulus/mask_tiles.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace annulus::launch {
namespace {

constexpr std::int64_t kMostTokens = 2000;  ///< below, a cell is a token
constexpr std::int64_t kMostCells = 300;    ///< a side
constexpr std::int64_t kMostHovers = 4096;  ///< cells that speak one by one
constexpr std::size_t kMostBars = 16;
constexpr double kSide = 720;  ///< of the plot, pixels

// Dark to light, so that they also read in grey; the rank colours are none of them.
constexpr const char* kFull = "#1f3b63";
constexpr const char* kPartial = "#8ab4de";
constexpr const char* kEmpty = "#f0f1f4";
constexpr const char* kInk = "#24292f";
constexpr const char* kFaint = "#57606a";

/// A tick step of 1, 2 or 5 times a power of ten, or of two for lengths that are.
std::int64_t tick_step(std::int64_t length) {
  if (length >= 1024 && length % 1024 == 0) {
    std::int64_t step = 1;
    while (length / step > 8) step *= 2;
    return step;
  }
  for (std::int64_t power = 1;; power *= 10) {
    for (const std::int64_t factor : {1, 2, 5}) {
      if (length / (factor * power) <= 8) return factor * power;
    }
  }
}

std::string short_position(std::int64_t n) {
  if (n > 0 && n % (1 << 20) == 0) return fmt::format("{}M", n >> 20);
  if (n > 0 && n % 1024 == 0) return fmt::format("{}k", n >> 10);
  return fmt::format("{}", n);
}

class Drawing {
 public:
  explicit Drawing(const MaskPicture& picture)
      : p_(picture),
        seq_(picture.problem.seq),
        seq_kv_(*picture.problem.seq_kv),
        cell_(cell_of(picture)),
        scale_(scale()),
        font_(std::max(12.0, 12.0 * plot_width() / 1000)),
        strip_(1.5 * font_),
        left_(std::ceil(strip_ + margin_of_labels() + 3.4 * font_)),
        top_(std::ceil(strip_ + 6.2 * font_)),
        svg_(left_ + plot_width() + 21 * font_,
             std::max(top_ + plot_height() + margin_of_labels() + 4.4 * font_, top_ + 34 * font_)) {
  }

  std::string draw() {
    draw_title();
    draw_cells();
    draw_documents();
    svg_.frame({left_, top_, plot_width(), plot_height()}, kInk, 1);
    draw_owners();
    draw_axes();
    draw_legend();
    return svg_.finish();
  }

 private:
  double scale() const {
    const auto longest = static_cast<double>(std::max(seq_, seq_kv_));
    double pixels = kSide / longest;
    if (cell_ == 1) pixels = std::clamp(pixels, has_room() ? 13.0 : 1.0, 22.0);
    return pixels;
  }
  /// Labels are written beside up to 100 tokens; else they show on hover only.
  bool has_room() const { return !p_.labels.empty() && std::max(seq_, seq_kv_) <= 100; }
  double margin_of_labels() const {
    if (!has_room()) return 2.6 * font_;
    std::size_t longest = 0;
    for (const std::string& label : p_.labels) longest = std::max(longest, label.size());
    return (2 + 0.55 * static_cast<double>(std::min<std::size_t>(longest, 24))) * font_;
  }

  double plot_width() const { return static_cast<double>(seq_kv_) * scale_; }
  double plot_height() const { return static_cast<double>(seq_) * scale_; }
  // Whole pixels: between fractions of them renderers leave hairlines.
  double x_of(std::int64_t key) const {
    return left_ + std::round(static_cast<double>(key) * scale_);
  }
  double y_of(std::int64_t query) const {
    return top_ + std::round(static_cast<double>(query) * scale_);
  }

  void draw_title() {
    const std::int64_t pairs =
        std::accumulate(p_.rank_pairs.begin(), p_.rank_pairs.end(), std::int64_t{0});
    const double share = 100.0 * static_cast<double>(pairs) / static_cast<double>(seq_) /
                         static_cast<double>(seq_kv_);
    svg_.text(left_, 1.9 * font_, fmt::format("Mask {}", p_.problem.mask.name()),
              {.size = 1.45 * font_, .colour = kInk, .bold = true});
    svg_.text(left_, 3.5 * font_,
              fmt::format("{} queries × {} keys, {:.3g} % of the pairs unmasked; a cell is {}",
                          seq_, seq_kv_, share,
                          cell_ == 1 ? "one pair" : fmt::format("{} × {} tokens", cell_, cell_)),
              {.size = font_, .colour = kFaint});
  }

  std::string label_of(std::int64_t position) const {
    if (p_.labels.empty()) return fmt::format("{}", position);
    return fmt::format("{} \"{}\"", position, p_.labels[static_cast<std::size_t>(position)]);
  }
  /// Labels count keys; queries are the last of them where there are more keys.
  std::string query_label(std::int64_t query) const {
    if (p_.labels.empty()) return fmt::format("{}", query);
    return fmt::format("{} \"{}\"", query, label_at_query(query));
  }
  const std::string& label_at_query(std::int64_t query) const {
    return p_.labels[static_cast<std::size_t>(query + std::max<std::int64_t>(0, seq_kv_ - seq_))];
  }

  void draw_cells() {
    svg_.cell({left_, top_, plot_width(), plot_height()}, kEmpty);
    const MaskTiles tiles(p_.problem, cell_, cell_);
    const bool each = cell_ == 1 && seq_ * seq_kv_ <= kMostHovers;
    for (std::int64_t row = 0; row < tiles.rows(); ++row) {
      for (const TileRun& run : tiles.runs(row)) {
        for (std::int64_t at = run.begin; at < run.end;) {
          const std::int64_t end = each ? at + 1 : run.end;
          draw_run(row, at, end, run.full);
          at = end;
        }
      }
    }
    if (each && scale_ >= 6) draw_grid();
  }

  void draw_run(std::int64_t row, std::int64_t begin, std::int64_t end, bool full) {
    const std::int64_t query = row * cell_;
    const std::int64_t query_end = std::min(seq_, query + cell_);
    const std::int64_t key = begin * cell_;
    const std::int64_t key_end = std::min(seq_kv_, end * cell_);
    std::string hover;
    if (cell_ > 1) {
      hover = fmt::format("queries {}-{}, keys {}-{}: {}", query, query_end - 1, key, key_end - 1,
                          full ? "every pair unmasked" : "some pairs unmasked");
    } else if (key_end - key == 1) {
      hover = fmt::format("query {} sees key {}", query_label(query), label_of(key));
    } else {
      hover = fmt::format("query {} sees keys {} to {}", query_label(query), label_of(key),
                          label_of(key_end - 1));
    }
    svg_.cell({x_of(key), y_of(query), x_of(key_end) - x_of(key), y_of(query_end) - y_of(query)},
              full ? kFull : kPartial, hover);
  }

  void draw_grid() {
    for (std::int64_t i = 1; i < seq_; ++i) {
      svg_.line(left_, y_of(i), left_ + plot_width(), y_of(i), "#ffffff", 1);
    }
    for (std::int64_t j = 1; j < seq_kv_; ++j) {
      svg_.line(x_of(j), top_, x_of(j), top_ + plot_height(), "#ffffff", 1);
    }
  }

  /// Each document is a square on the diagonal.
  void draw_documents() {
    std::int64_t begin = 0;
    for (const std::int64_t end : p_.document_ends) {
      const double side = x_of(end) - x_of(begin);
      if (side >= 3) svg_.frame({x_of(begin), y_of(begin), side, side}, "#d1242f", 2);
      begin = end;
    }
  }

  void draw_owners() {
    std::vector<Shard> queries;
    std::vector<Shard> keys;
    for (int r = 0; r < p_.sharding.world(); ++r) {
      queries.push_back(p_.sharding.shard(r));
      keys.push_back(p_.sharding.shard_kv(r));
    }
    const double gap = 0.4 * font_;
    for (const OwnedSpan& span : owned_spans(keys, seq_kv_, cell_)) {
      const double x = x_of(span.begin);
      draw_span(span, {x, top_ - gap - strip_, x_of(span.end) - x, strip_}, true);
    }
    for (const OwnedSpan& span : owned_spans(queries, seq_, cell_)) {
      const double y = y_of(span.begin);
      draw_span(span, {left_ - gap - strip_, y, strip_, y_of(span.end) - y}, false);
    }
  }

  /// Ranks that share a span lie beside each other, across the strip.
  void draw_span(const OwnedSpan& span, const Box& box, bool along_x) {
    const auto n = static_cast<double>(span.ranks.size());
    for (std::size_t i = 0; i < span.ranks.size(); ++i) {
      Box part = box;
      (along_x ? part.height : part.width) /= n;
      (along_x ? part.y : part.x) += static_cast<double>(i) * strip_ / n;
      svg_.cell(part, rank_colour(span.ranks[i], p_.sharding.world()),
                fmt::format("positions {}-{}: rank {}", span.begin, span.end - 1, span.ranks[i]));
    }
    if (span.ranks.size() != 1 || (along_x ? box.width : box.height) < 1.6 * font_) return;
    svg_.text(box.x + box.width / 2, box.y + box.height / 2 + 0.36 * font_,
              fmt::format("{}", span.ranks.front()),
              {.size = font_, .anchor = "middle", .colour = "#000000", .bold = true});
  }

  void draw_axes() {
    const double bottom = top_ + plot_height();
    const double strip_x = left_ - 0.4 * font_ - strip_;
    if (has_room()) {
      draw_labels(strip_x, bottom);
    } else {
      draw_ticks(strip_x, bottom);
    }
    svg_.text(left_ + plot_width() / 2, bottom + margin_of_labels() + 1.2 * font_, "key position",
              {.size = 1.1 * font_, .anchor = "middle"});
    svg_.text(1.5 * font_, top_ + plot_height() / 2, "query position",
              {.size = 1.1 * font_, .anchor = "middle", .rotate = -90});
  }

  void draw_ticks(double strip_x, double bottom) {
    const std::int64_t step = tick_step(std::max(seq_, seq_kv_));
    for (std::int64_t j = 0; j <= seq_kv_; j += step) {
      svg_.line(x_of(j), bottom, x_of(j), bottom + 0.4 * font_, kInk, 1);
      svg_.text(x_of(j), bottom + 1.6 * font_, short_position(j),
                {.size = font_, .anchor = "middle", .colour = kFaint});
    }
    for (std::int64_t i = 0; i <= seq_; i += step) {
      svg_.line(strip_x - 0.4 * font_, y_of(i), strip_x, y_of(i), kInk, 1);
      svg_.text(strip_x - 0.6 * font_, y_of(i) + 0.36 * font_, short_position(i),
                {.size = font_, .anchor = "end", .colour = kFaint});
    }
  }

  void draw_labels(double strip_x, double bottom) {
    const TextStyle style{.size = std::min(font_, 0.85 * scale_), .anchor = "end"};
    for (std::int64_t i = 0; i < seq_; ++i) {
      svg_.text(strip_x - 0.5 * font_, y_of(i) + scale_ / 2 + 0.36 * style.size, label_at_query(i),
                style);
    }
    TextStyle turned = style;
    turned.rotate = -90;
    for (std::int64_t j = 0; j < seq_kv_; ++j) {
      svg_.text(x_of(j) + scale_ / 2 + 0.36 * style.size, bottom + 0.5 * font_,
                p_.labels[static_cast<std::size_t>(j)], turned);
    }
  }

  void draw_legend() {
    const double x = left_ + plot_width() + 2 * font_;
    double y = top_ + font_;
    const auto heading = [&](const std::string& words) {
      svg_.text(x, y, words, {.size = 1.1 * font_, .bold = true});
      y += 1.8 * font_;
    };
    const auto entry = [&](const char* fill, const char* words) {
      svg_.cell({x, y - 0.9 * font_, 1.2 * font_, 1.2 * font_}, fill);
      svg_.frame({x, y - 0.9 * font_, 1.2 * font_, 1.2 * font_}, "#8c959f", 1);
      svg_.text(x + 1.8 * font_, y, words, {.size = font_});
      y += 1.8 * font_;
    };
    heading(cell_ == 1 ? "Pairs" : "Cells");
    entry(kFull, cell_ == 1 ? "unmasked" : "full: every pair unmasked");
    if (cell_ > 1) entry(kPartial, "partial: some pairs");
    entry(kEmpty, cell_ == 1 ? "masked" : "empty: none");
    if (!p_.document_ends.empty()) {
      svg_.frame({x, y - 0.9 * font_, 1.2 * font_, 1.2 * font_}, "#d1242f", 2);
      svg_.text(x + 1.8 * font_, y, fmt::format("documents ({})", p_.document_ends.size()),
                {.size = font_});
      y += 1.8 * font_;
    }
    y += font_;
    heading("Owners and their load");
    svg_.text(x, y,
              fmt::format("{} rank{}, {} layout", p_.rank_pairs.size(),
                          p_.rank_pairs.size() == 1 ? "" : "s", p_.layout),
              {.size = font_, .colour = kFaint});
    y += 1.6 * font_;
    draw_load(x, y);
  }

  void draw_load(double x, double y) {
    const auto world = p_.rank_pairs.size();
    double total = 0;
    for (const std::int64_t pairs : p_.rank_pairs) total += static_cast<double>(pairs);
    const double mean = total / static_cast<double>(world);
    const auto most = static_cast<double>(std::ranges::max(p_.rank_pairs));
    if (mean > 0) {
      svg_.text(x, y, fmt::format("busiest: {:.3g} × the mean", most / mean), {.size = font_});
    }
    y += 1.6 * font_;
    const double width = 10 * font_;
    for (std::size_t r = 0; r < std::min(world, kMostBars) && most > 0; ++r) {
      const auto pairs = static_cast<double>(p_.rank_pairs[r]);
      svg_.text(x + 1.6 * font_, y + 0.9 * font_, fmt::format("{}", r),
                {.size = font_, .anchor = "end"});
      svg_.cell({x + 2.2 * font_, y, width * pairs / most, 1.1 * font_},
                rank_colour(static_cast<int>(r), static_cast<int>(world)),
                fmt::format("rank {}: {} unmasked pairs", r, p_.rank_pairs[r]));
      svg_.text(x + 2.7 * font_ + width * pairs / most, y + 0.9 * font_,
                fmt::format("{:.3g} %", 100 * pairs / total), {.size = font_, .colour = kFaint});
      y += 1.6 * font_;
    }
    if (world > kMostBars) {
      svg_.text(x, y + 0.9 * font_, fmt::format("and {} more", world - kMostBars),
                {.size = font_, .colour = kFaint});
    }
  }

  const MaskPicture& p_;
  std::int64_t seq_, seq_kv_, cell_;
  double scale_;  ///< pixels a token
  double font_;
  double strip_;  ///< thickness of the owners
  double left_, top_;
  Svg svg_;
};

}  // namespace

std::int64_t cell_of(const MaskPicture& picture) {
  const std::int64_t longest = std::max(picture.problem.seq, *picture.problem.seq_kv);
  if (longest < kMostTokens) return 1;
  const std::int64_t tiles = (longest + picture.tile - 1) / picture.tile;
  return picture.tile * ((tiles + kMostCells - 1) / kMostCells);
}

std::string draw_mask(const MaskPicture& picture) { return Drawing(picture).draw(); }

}  // namespace annulus::launch
