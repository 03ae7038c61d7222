#include "launch/attend/move.h"

#include <annulus/collective.h>

#include <algorithm>
#include <cstring>

namespace annulus::launch {
namespace {

constexpr std::int64_t kWindowBytes = std::int64_t{8} << 20;

/// Rows [outer, outer_end) and positions [token, token_end): one stretch of the file.
struct Window {
  std::int64_t outer = 0, outer_end = 0, token = 0, token_end = 0;

  std::int64_t runs() const { return (outer_end - outer) * (token_end - token); }
};

std::vector<Window> windows_of(const Strips& s) {
  std::vector<Window> windows;
  if (s.outer * s.tokens * s.run == 0) return windows;
  const std::int64_t tokens = std::clamp<std::int64_t>(kWindowBytes / s.run, 1, s.tokens);
  const std::int64_t rows =
      tokens < s.tokens ? 1 : std::max<std::int64_t>(1, kWindowBytes / (s.tokens * s.run));
  for (std::int64_t o = 0; o < s.outer; o += rows) {
    for (std::int64_t t = 0; t < s.tokens; t += tokens) {
      windows.push_back({o, std::min(s.outer, o + rows), t, std::min(s.tokens, t + tokens)});
    }
  }
  return windows;
}

/// Tokens of a shard inside a window.
struct Piece {
  std::int64_t local = 0;  ///< index of the first in the shard
  TokenRange positions;
};

struct Pieces {
  std::vector<Piece> list;
  std::int64_t tokens = 0;
};

Pieces pieces_in(const Shard& shard, const Window& window) {
  Pieces pieces;
  std::int64_t before = 0;
  for (const TokenRange& range : shard) {
    const auto index = [&](std::int64_t position) {
      const std::int64_t away = std::max<std::int64_t>(0, position - range.begin);
      return std::min(range.count, (away + range.stride - 1) / range.stride);
    };
    const std::int64_t begin = index(window.token);
    const std::int64_t count = index(window.token_end) - begin;
    if (count > 0) {
      pieces.list.push_back({before + begin, {range.position(begin), count, range.stride}});
      pieces.tokens += count;
    }
    before += range.count;
  }
  return pieces;
}

/// Calls fn(bytes into the window, bytes into the shard, bytes into the message, length).
template <typename Fn>
void for_runs(const Strips& s, const Window& window, const Pieces& pieces, std::int64_t seq_local,
              Fn fn) {
  std::int64_t packed = 0;
  for (std::int64_t o = window.outer; o < window.outer_end; ++o) {
    const std::int64_t row = (o - window.outer) * (window.token_end - window.token);
    for (const Piece& piece : pieces.list) {
      const bool dense = piece.positions.stride == 1;
      const std::int64_t steps = dense ? 1 : piece.positions.count;
      const std::int64_t length = (dense ? piece.positions.count : 1) * s.run;
      for (std::int64_t i = 0; i < steps; ++i) {
        fn((row + piece.positions.position(i) - window.token) * s.run,
           (o * seq_local + piece.local + i) * s.run, packed, length);
        packed += length;
      }
    }
  }
}

std::int64_t tokens_of(const Shard& shard) {
  std::int64_t n = 0;
  for (const TokenRange& range : shard) n += range.count;
  return n;
}

/// What both directions share: windows, and which bytes of them are whose.
class Mover {
 public:
  Mover(Mesh& mesh, const Strips& strips, const std::vector<Shard>& shards, std::string_view what)
      : mesh_(mesh), strips_(strips), shards_(shards), what_(what) {}

  void scatter(const ReadFull& read, std::byte* local) {
    for (const Window& window : windows_of(strips_)) {
      if (mesh_.rank() == 0) {
        open(window);
        read(begin_of(window), full_);
        for (int r = 1; r < mesh_.world(); ++r) {
          for_message(window, r, [&](std::int64_t w, std::int64_t, std::int64_t m, std::int64_t n) {
            copy(message_.data() + m, full_.data() + w, n);
          });
          if (!message_.empty()) send(mesh_, r, message_, what_);
        }
        for_own(window, [&](std::int64_t w, std::int64_t l, std::int64_t, std::int64_t n) {
          copy(local + l, full_.data() + w, n);
        });
      } else if (resize_message(window, mesh_.rank())) {
        receive(mesh_, 0, message_, what_);
        for_own(window, [&](std::int64_t, std::int64_t l, std::int64_t m, std::int64_t n) {
          copy(local + l, message_.data() + m, n);
        });
      }
    }
  }

  void gather(const WriteFull& write, const std::byte* local) {
    for (const Window& window : windows_of(strips_)) {
      if (mesh_.rank() == 0) {
        open(window);
        for_own(window, [&](std::int64_t w, std::int64_t l, std::int64_t, std::int64_t n) {
          copy(full_.data() + w, local + l, n);
        });
        for (int r = 1; r < mesh_.world(); ++r) {
          if (!resize_message(window, r)) continue;
          receive(mesh_, r, message_, what_);
          for_message(window, r, [&](std::int64_t w, std::int64_t, std::int64_t m, std::int64_t n) {
            copy(full_.data() + w, message_.data() + m, n);
          });
        }
        write(begin_of(window), full_);
      } else if (resize_message(window, mesh_.rank())) {
        for_own(window, [&](std::int64_t, std::int64_t l, std::int64_t m, std::int64_t n) {
          copy(message_.data() + m, local + l, n);
        });
        send(mesh_, 0, message_, what_);
      }
    }
  }

 private:
  static void copy(std::byte* to, const std::byte* from, std::int64_t bytes) {
    std::memcpy(to, from, static_cast<std::size_t>(bytes));
  }

  std::int64_t begin_of(const Window& window) const {
    return (window.outer * strips_.tokens + window.token) * strips_.run;
  }
  void open(const Window& window) {
    full_.resize(static_cast<std::size_t>(window.runs() * strips_.run));
  }
  const Shard& shard(int rank) const { return shards_[static_cast<std::size_t>(rank)]; }

  /// False where the rank has nothing in the window: then there is no message.
  bool resize_message(const Window& window, int rank) {
    const std::int64_t rows = window.outer_end - window.outer;
    const std::int64_t bytes = rows * pieces_in(shard(rank), window).tokens * strips_.run;
    message_.resize(static_cast<std::size_t>(bytes));
    return bytes > 0;
  }

  template <typename Fn>
  void for_message(const Window& window, int rank, Fn fn) {
    if (!resize_message(window, rank)) return;
    for_runs(strips_, window, pieces_in(shard(rank), window), 0, fn);
  }
  template <typename Fn>
  void for_own(const Window& window, Fn fn) {
    const Shard& own = shard(mesh_.rank());
    for_runs(strips_, window, pieces_in(own, window), tokens_of(own), fn);
  }

  Mesh& mesh_;
  const Strips& strips_;
  const std::vector<Shard>& shards_;
  std::string_view what_;
  std::vector<std::byte> full_, message_;
};

}  // namespace

void scatter(Mesh& mesh, const Strips& strips, const std::vector<Shard>& shards,
             const ReadFull& read, std::span<std::byte> local, std::string_view what) {
  Mover(mesh, strips, shards, what).scatter(read, local.data());
}

void gather(Mesh& mesh, const Strips& strips, const std::vector<Shard>& shards,
            const WriteFull& write, std::span<const std::byte> local, std::string_view what) {
  Mover(mesh, strips, shards, what).gather(write, local.data());
}

}  // namespace annulus::launch
