// How many slices `ulysses` takes, and how large. Exposed is what moves before the first attend and
// after the last one, so the first and the last slice should be small; a third one between them
// takes the rest, for each launch costs time and has an end at which SMs idle.
//
// Example, forward, 4 GPUs, 16384 tokens a GPU, 32:8 heads, D 128, bf16, causal (8:2 heads a rank):
// a head is 1.8 ms of attention; q of a head comes in 34 us, out leaves in 34 us, K and V of a head
// come in 68 us, and local copies of all heads take 0.2 ms before and 0.1 ms after. One slice shows
// 0.9 ms of 14.7; 1 + 5 + 2 heads show 0.3 ms, the most of it local copies. At 1024 tokens a GPU a
// head has 32 items of 128 rows for 132 SMs: half of the heads would take as long as all.

#include "attention/plan/head_slices.h"

#include <algorithm>
#include <cmath>

namespace annulus::attn {
namespace {

// docs/notes/05-gpu-measurements.md and docs/performance.md; H100 and H200.
constexpr double kLinkBytesAUs = 370e3;   ///< one copy engine
constexpr double kCopyUs = 6.0;           ///< a copy's start and its flags
constexpr double kLocalBytesAUs = 1.2e6;  ///< copied within the GPU: read and written
/// Until tensor cores are busy, the last block's end, and flags. Not measured alone: on two H200s
/// three slices of 16k tokens a GPU gained 0.21 ms; with 10 us here the model says 0.29 or more.
constexpr double kLaunchUs = 40.0;
constexpr double kSms = 132;
constexpr double kItemRows = 128;
/// Slices of more heads than these are cut at every second one, or fewer.
constexpr std::int32_t kPlaces = 64;

/// Key/value heads that the first `heads` query heads read.
std::int64_t keys_of(const SliceCase& c, std::int32_t heads) {
  return (heads + c.group - 1) / c.group;
}

class Timeline {
 public:
  Timeline(const SliceCase& c, const std::vector<std::int32_t>& ends) : c_(c), ends_(ends) {}

  /// All transfers that come in are before those that go home: they are there long before.
  double run() const {
    const std::size_t n = ends_.size();
    const double others = c_.members - 1;
    double staged = 0;  // local copies so far, which the link waits for where they are its sources
    double link = 0;
    std::vector<double> there(n);
    for (std::size_t i = 0; i < n; ++i) {
      if (!c_.gives_in_place) link = std::max(link, staged += local(in(i)));
      there[i] = link += move(in(i));
      if (i == 0) staged += local(all(c_.row_in, c_.key_in)) / others;
    }
    double done = staged;
    double landed = local(all(c_.row_out, c_.key_out)) / others;
    for (std::size_t i = 0; i < n; ++i) {
      done = std::max(done, there[i]) + attend(heads(i));
      link = std::max(link, done) + move(out(i));
      if (i + 1 < n && !c_.lands_in_place) landed += local(out(i));
    }
    const double last = c_.lands_in_place ? 0 : local(out(n - 1));
    return std::max(link, done + landed) + last;
  }

 private:
  std::int32_t begin(std::size_t i) const { return i == 0 ? 0 : ends_[i - 1]; }
  std::int32_t heads(std::size_t i) const { return ends_[i] - begin(i); }
  std::int64_t keys(std::size_t i) const { return keys_of(c_, ends_[i]) - keys_of(c_, begin(i)); }

  /// Of what others hold.
  double away(double bytes) const { return bytes * (c_.members - 1) / c_.members; }
  double bytes(std::int64_t rows, std::int64_t keys) const {
    return away(static_cast<double>(c_.batch * (rows * c_.rows + keys * c_.keys)));
  }
  double in(std::size_t i) const { return bytes(heads(i) * c_.row_in, keys(i) * c_.key_in); }
  double out(std::size_t i) const { return bytes(heads(i) * c_.row_out, keys(i) * c_.key_out); }
  double all(std::int64_t row, std::int64_t key) const {
    return bytes(c_.heads * row, keys_of(c_, c_.heads) * key);
  }

  double move(double bytes) const { return kCopyUs * (c_.members - 1) + bytes / kLinkBytesAUs; }
  static double local(double bytes) { return bytes / kLocalBytesAUs; }

  /// Items go to SMs longest first. With a full mask all are alike, and the last wave of them may
  /// leave SMs idle; with a causal one the longest is twice the mean, and short ones fill up. In
  /// backward an item is a key tile of all query heads of a key/value head, the unit there.
  double attend(std::int32_t heads) const {
    const auto rows = static_cast<double>(c_.rows);
    if (c_.pairs == 0) return kLaunchUs;
    const double seen = static_cast<double>(c_.pairs) / rows;  // keys of a row
    const double a_row = seen * static_cast<double>(c_.flops_a_pair) / (c_.tflops * 1e6);
    const double item = a_row * kItemRows * kSms * c_.unit;
    const double longest = item * std::clamp(static_cast<double>(c_.keys) / seen, 1.0, 2.0);
    const double waves =
        static_cast<double>(c_.batch) * heads / c_.unit * std::ceil(rows / kItemRows) / kSms;
    const double idle = (2 * item - longest) * (std::ceil(waves) - waves);
    return kLaunchUs + std::max(longest, waves * item + idle);
  }

  const SliceCase& c_;
  const std::vector<std::int32_t>& ends_;
};

}  // namespace

std::vector<std::int32_t> even_slices(std::int32_t heads, std::int32_t unit, int count) {
  const std::int32_t units = (heads + unit - 1) / unit;
  const std::int32_t slices = std::clamp(count, 1, std::max(1, units));
  std::vector<std::int32_t> ends;
  for (std::int32_t i = 1; i <= slices; ++i) {
    ends.push_back(std::min(heads, units * i / slices * unit));
  }
  return ends;
}

double sliced_us(const SliceCase& c, const std::vector<std::int32_t>& ends) {
  return Timeline(c, ends).run();
}

std::vector<std::int32_t> best_slices(const SliceCase& c) {
  std::vector<std::int32_t> best{c.heads};
  if (c.members < 2) return best;
  double least = sliced_us(c, best);
  const auto consider = [&](std::vector<std::int32_t> ends) {
    const double us = sliced_us(c, ends);
    if (us >= least) return;
    least = us;
    best = std::move(ends);
  };
  const std::int32_t step = c.unit * std::max(1, c.heads / c.unit / kPlaces);
  for (std::int32_t first = step; first < c.heads; first += step) {
    consider({first, c.heads});
    for (std::int32_t last = first + step; last < c.heads; last += step) {
      consider({first, last, c.heads});
    }
  }
  return best;
}

}  // namespace annulus::attn
