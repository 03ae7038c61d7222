#include <annulus/error.h>
#include <annulus/layout.h>

#include "attention/layout_balanced.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace annulus {
namespace {

/// Boundary i of `parts` even parts of `total`.
std::int64_t cut(std::int64_t total, std::int64_t parts, std::int64_t i) {
  // In two halves, so that total * i cannot overflow.
  return total / parts * i + total % parts * i / parts;
}

TokenRange between(std::int64_t begin, std::int64_t end) { return {begin, end - begin, 1}; }

/// Appends a range, joined to the last one where they touch; drops an empty one.
void append(Shard& shard, TokenRange range) {
  if (range.count == 0) return;
  if (!shard.empty() && shard.back().stride == 1 && range.stride == 1 &&
      shard.back().begin + shard.back().count == range.begin) {
    shard.back().count += range.count;
  } else {
    shard.push_back(range);
  }
}

std::vector<Shard> contiguous_shards(std::int64_t seq, int world) {
  std::vector<Shard> shards(static_cast<std::size_t>(world));
  for (int r = 0; r < world; ++r) {
    append(shards[static_cast<std::size_t>(r)],
           between(cut(seq, world, r), cut(seq, world, r + 1)));
  }
  return shards;
}

std::vector<Shard> zigzag_shards(std::int64_t seq, int world) {
  std::vector<Shard> shards(static_cast<std::size_t>(world));
  const int chunks = 2 * world;
  for (int r = 0; r < world; ++r) {
    for (const int c : {r, chunks - 1 - r}) {
      append(shards[static_cast<std::size_t>(r)],
             between(cut(seq, chunks, c), cut(seq, chunks, c + 1)));
    }
  }
  return shards;
}

std::vector<Shard> striped_shards(std::int64_t seq, int world) {
  std::vector<Shard> shards(static_cast<std::size_t>(world));
  for (int r = 0; r < world; ++r) {
    const std::int64_t count = seq > r ? (seq - r + world - 1) / world : 0;
    append(shards[static_cast<std::size_t>(r)], {r, count, world == 1 ? 1 : world});
  }
  return shards;
}

std::int64_t tokens_of(const Shard& shard) {
  std::int64_t n = 0;
  for (const TokenRange& range : shard) n += range.count;
  return n;
}

/// Every position of [0, seq) once.
void check_cover(const std::vector<Shard>& shards, std::int64_t seq, int world, const char* what) {
  if (static_cast<int>(shards.size()) != world) {
    throw InvalidArgument(
        fmt::format("layout: {} shards of {} for {} ranks", shards.size(), what, world));
  }
  std::vector<char> seen(static_cast<std::size_t>(seq), 0);
  std::int64_t total = 0;
  for (std::size_t r = 0; r < shards.size(); ++r) {
    for (const TokenRange& range : shards[r]) {
      // Divided, as the product of a wild count and stride could overflow.
      const bool fits =
          range.count >= 0 && range.stride >= 1 && range.begin >= 0 &&
          (range.count == 0 ||
           (range.begin < seq && range.count - 1 <= (seq - 1 - range.begin) / range.stride));
      if (!fits) {
        throw InvalidArgument(
            fmt::format("layout: rank {} range begin {} count {} stride {} leaves [0, {}) of {}", r,
                        range.begin, range.count, range.stride, seq, what));
      }
      for (std::int64_t i = 0; i < range.count; ++i) {
        char& mark = seen[static_cast<std::size_t>(range.position(i))];
        if (mark != 0) {
          throw InvalidArgument(
              fmt::format("layout: position {} of {} is given twice", range.position(i), what));
        }
        mark = 1;
      }
      total += range.count;
    }
  }
  if (total != seq) {
    throw InvalidArgument(
        fmt::format("layout: shards hold {} of {} positions of {}", total, seq, what));
  }
}

std::vector<std::int64_t> positions_of(const Shard& shard) {
  std::vector<std::int64_t> positions;
  positions.reserve(static_cast<std::size_t>(tokens_of(shard)));
  for (const TokenRange& range : shard) {
    for (std::int64_t i = 0; i < range.count; ++i) positions.push_back(range.position(i));
  }
  return positions;
}

Sharding given_sharding(const Layout& layout, const Problem& p, int world) {
  const bool same = layout.shards_kv().empty();
  if (same && *p.seq_kv != p.seq) {
    throw InvalidArgument(
        fmt::format("layout: shards of the keys are needed, as seq_kv {} differs from seq {}",
                    *p.seq_kv, p.seq));
  }
  const std::vector<Shard>& kv = same ? layout.shards() : layout.shards_kv();
  check_cover(layout.shards(), p.seq, world, "queries");
  check_cover(kv, *p.seq_kv, world, "keys");
  return {layout.shards(), kv};
}

/// One token of a tensor, as it lies in memory.
struct TokenView {
  const std::byte* data;
  const ConstTensorView& view;
};

/// Copies dimensions `d` and up of one token. What is compact in both goes at once.
void copy_token(const TokenView& from, const TokenView& to, int d) {
  const std::int64_t size = size_of(from.view.dtype);
  const auto at = static_cast<std::size_t>(d);
  std::int64_t compact = 1;
  bool dense = true;
  for (int i = from.view.rank - 1; i >= d; --i) {
    const auto k = static_cast<std::size_t>(i);
    const bool one = from.view.shape[k] == 1;
    dense = dense && (one || (from.view.strides[k] == compact && to.view.strides[k] == compact));
    compact *= from.view.shape[k];
  }
  if (dense) {
    // The target is the mutable view that shard() and unshard() were given.
    std::memcpy(const_cast<std::byte*>(to.data), from.data,
                static_cast<std::size_t>(compact * size));
    return;
  }
  for (std::int64_t i = 0; i < from.view.shape[at]; ++i) {
    copy_token({from.data + i * from.view.strides[at] * size, from.view},
               {to.data + i * to.view.strides[at] * size, to.view}, d + 1);
  }
}

bool fits(const Shard& shard, const ConstTensorView& full, const ConstTensorView& local) {
  if (full.rank < 2 || full.rank != local.rank || full.dtype != local.dtype) return false;
  for (const TokenRange& range : shard) {
    if (range.count > 0 && (range.begin < 0 || range.position(range.count - 1) >= full.shape[1])) {
      return false;
    }
  }
  return full.shape[0] == local.shape[0] && local.shape[1] == tokens_of(shard) &&
         std::equal(full.shape.begin() + 2, full.shape.begin() + full.rank,
                    local.shape.begin() + 2);
}

/// Copies tokens between a full and a local tensor; `to_local` says which way.
void move_tokens(const Shard& shard, const ConstTensorView& full, const ConstTensorView& local,
                 bool to_local) {
  if (!fits(shard, full, local)) {
    throw InvalidArgument(fmt::format("shard: full {} and local {} do not fit a shard of {} tokens",
                                      describe(full), describe(local), tokens_of(shard)));
  }
  const auto token_of = [](const ConstTensorView& view, std::int64_t batch, std::int64_t token) {
    return TokenView{static_cast<const std::byte*>(view.data) +
                         (batch * view.strides[0] + token * view.strides[1]) * size_of(view.dtype),
                     view};
  };
  for (std::int64_t b = 0; b < full.shape[0]; ++b) {
    std::int64_t token = 0;
    for (const TokenRange& range : shard) {
      for (std::int64_t i = 0; i < range.count; ++i, ++token) {
        const TokenView in_full = token_of(full, b, range.position(i));
        const TokenView in_local = token_of(local, b, token);
        copy_token(to_local ? in_full : in_local, to_local ? in_local : in_full, 2);
      }
    }
  }
}

}  // namespace

Layout Layout::contiguous() {
  Layout layout;
  layout.kind_ = Kind::contiguous;
  return layout;
}

Layout Layout::zigzag() { return {}; }

Layout Layout::striped() {
  Layout layout;
  layout.kind_ = Kind::striped;
  return layout;
}

Layout Layout::balanced() {
  Layout layout;
  layout.kind_ = Kind::balanced;
  return layout;
}

Layout Layout::given(std::vector<Shard> shards, std::vector<Shard> kv) {
  Layout layout;
  layout.kind_ = Kind::given;
  layout.shards_ = std::move(shards);
  layout.shards_kv_ = std::move(kv);
  return layout;
}

std::string Layout::name() const {
  switch (kind_) {
    case Kind::contiguous:
      return "contiguous";
    case Kind::zigzag:
      return "zigzag";
    case Kind::striped:
      return "striped";
    case Kind::balanced:
      return "balanced";
    case Kind::given:
      return "given";
  }
  return "?";
}

Sharding::Sharding(std::vector<Shard> q, std::vector<Shard> kv)
    : q_(std::move(q)), kv_(std::move(kv)) {}

std::int64_t Sharding::seq_local(int rank) const { return tokens_of(shard(rank)); }
std::int64_t Sharding::seq_kv_local(int rank) const { return tokens_of(shard_kv(rank)); }
std::vector<std::int64_t> Sharding::positions(int rank) const { return positions_of(shard(rank)); }
std::vector<std::int64_t> Sharding::positions_kv(int rank) const {
  return positions_of(shard_kv(rank));
}

Sharding solve_layout(const Layout& layout, const Problem& problem, int world) {
  const Problem p = resolved(problem);
  if (world < 1) throw InvalidArgument(fmt::format("world {}: must be >= 1", world));
  switch (layout.kind()) {
    case Layout::Kind::contiguous:
      return {contiguous_shards(p.seq, world), contiguous_shards(*p.seq_kv, world)};
    case Layout::Kind::zigzag:
      return {zigzag_shards(p.seq, world), zigzag_shards(*p.seq_kv, world)};
    case Layout::Kind::striped:
      return {striped_shards(p.seq, world), striped_shards(*p.seq_kv, world)};
    case Layout::Kind::balanced: {
      std::vector<Shard> q = attn::balanced_shards(p, world);
      // Self-attention keeps a token's query and key together; other keys have no such bond.
      std::vector<Shard> kv = *p.seq_kv == p.seq ? q : contiguous_shards(*p.seq_kv, world);
      return {std::move(q), std::move(kv)};
    }
    case Layout::Kind::given:
      return given_sharding(layout, p, world);
  }
  throw InvalidArgument("layout: unknown kind");
}

void shard(const Shard& shard, const ConstTensorView& full, const TensorView& local) {
  move_tokens(shard, full, local, true);
}

void unshard(const Shard& shard, const ConstTensorView& local, const TensorView& full) {
  move_tokens(shard, full, local, false);
}

}  // namespace annulus
