#include "comm/composite/choice.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <array>
#include <cstddef>
#include <cstring>
#include <utility>

namespace annulus::comm::composite {
namespace {

/// A text as it travels.
using Words = std::array<char, 240>;

Words words(const std::string& text) {
  Words out{};
  std::strncpy(out.data(), text.c_str(), out.size() - 1);
  return out;
}

std::vector<std::string> gather_texts(Communicator& communicator, const std::string& mine) {
  const Words own = words(mine);
  std::vector<Words> all(static_cast<std::size_t>(communicator.size()));
  communicator.all_gather(std::as_bytes(std::span(&own, 1)), std::as_writable_bytes(std::span(all)),
                          "reach of GPUs");
  std::vector<std::string> texts;
  for (const Words& w : all) texts.emplace_back(w.data());
  return texts;
}

}  // namespace

Reach::Reach(std::vector<std::vector<bool>> reaches, std::vector<std::string> why_not,
             std::vector<std::string> nccl_errors)
    : reaches_(std::move(reaches)),
      why_not_(std::move(why_not)),
      nccl_errors_(std::move(nccl_errors)) {}

Reach Reach::gather(Communicator& communicator, const std::vector<bool>& reaches,
                    const std::string& why_not, const std::string& nccl_error) {
  const std::size_t world = reaches.size();
  std::vector<char> mine(reaches.begin(), reaches.end());
  std::vector<char> all(world * world);
  communicator.all_gather(std::as_bytes(std::span(mine)), std::as_writable_bytes(std::span(all)),
                          "reach of GPUs");
  std::vector<std::vector<bool>> rows;
  for (std::size_t r = 0; r < world; ++r) {
    const auto row = std::span(all).subspan(r * world, world);
    rows.emplace_back(row.begin(), row.end());
  }
  return {std::move(rows), gather_texts(communicator, why_not),
          gather_texts(communicator, nccl_error)};
}

bool Reach::between(int a, int b) const {
  const auto i = static_cast<std::size_t>(a);
  const auto j = static_cast<std::size_t>(b);
  return reaches_[i][j] && reaches_[j][i];
}

bool Reach::all() const { return first_gap().empty(); }

bool Reach::none() const {
  for (int a = 0; a < world(); ++a) {
    for (int b = 0; b < a; ++b) {
      if (between(a, b)) return false;
    }
  }
  return true;
}

std::string Reach::first_gap() const {
  for (int a = 0; a < world(); ++a) {
    for (int b = 0; b < world(); ++b) {
      if (reaches_[static_cast<std::size_t>(a)][static_cast<std::size_t>(b)]) continue;
      return fmt::format("rank {} is out of rank {}'s reach: {}", b, a,
                         why_not_[static_cast<std::size_t>(a)]);
    }
  }
  return {};
}

std::string Reach::nccl_error() const {
  for (std::size_t r = 0; r < nccl_errors_.size(); ++r) {
    if (!nccl_errors_[r].empty()) return fmt::format("rank {}: {}", r, nccl_errors_[r]);
  }
  return {};
}

Choice choose(const std::string& asked, const Reach& reach) {
  if (asked != "auto" && asked != "peer" && asked != "nccl" && asked != "composite") {
    throw Unsupported(fmt::format(
        "transport {} between GPUs is not built; built: auto, peer, nccl, composite", asked));
  }
  const std::string gap = reach.first_gap();
  const std::string no_nccl = reach.nccl_error();
  if (asked == "peer") {
    if (!gap.empty()) throw Unsupported("transport peer: " + gap);
    return {"peer", "asked for"};
  }
  if (asked == "auto" && gap.empty()) return {"peer", "every rank's GPU can be addressed"};
  const bool needs_nccl = reach.world() > 1 && (asked == "nccl" || !gap.empty());
  if (needs_nccl && !no_nccl.empty()) {
    throw Unsupported(
        fmt::format("transport {}: {}{}{}", asked, gap, gap.empty() ? "" : "; ", no_nccl));
  }
  if (asked != "auto") return {asked, "asked for"};
  if (reach.none()) return {"nccl", "no rank's GPU can address another: " + gap};
  return {"composite", "some ranks' GPUs can address each other, others not: " + gap};
}

}  // namespace annulus::comm::composite
