// Calls launch no kernel whose code was not loaded at bind, wherever their tensors lie: a launch
// that loads waits for the whole GPU, whose streams may wait for a rank that shares it.

#include "attention/execute/cuda/row_kernels.h"
#include "attention/kernels/dispatch.h"
#include "attention/kernels/tile_index.h"
#include "comm/nccl/nccl_communicator.h"
#include "comm/nccl/pack.h"
#include "moe/kernels/cuda/launch.h"
#include "moe/kernels/cuda/pointers.h"
#include "moe/kernels/sm90/grouped.h"
#include "tests/engine/noted_launches.h"
#include "tests/support/launch.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <set>
#include <string>
#include <vector>

namespace annulus::testing {
namespace {

std::set<const void*> set_of(const KernelEntries& entries) {
  return {entries.begin(), entries.end()};
}

std::string names_of(const std::set<const void*>& entries) {
  std::string text;
  for (const void* entry : entries) text += registered_kernels().at(entry) + "\n";
  return text;
}

/// `some` without `others`.
std::set<const void*> without(const std::set<const void*>& some,
                              const std::set<const void*>& others) {
  std::set<const void*> left;
  std::set_difference(some.begin(), some.end(), others.begin(), others.end(),
                      std::inserter(left, left.end()));
  return left;
}

constexpr std::initializer_list<DType> kDTypes{DType::f32, DType::bf16, DType::f16};

std::vector<attn::KernelQuery> queries() {
  std::vector<attn::KernelQuery> all;
  for (const DType dtype : kDTypes) {
    for (const std::int64_t dim : {24, 64, 96, 128, 192, 256}) {
      for (const bool backward : {false, true}) {
        all.push_back({.dtype = dtype, .head_dim = dim, .head_dim_v = dim, .backward = backward});
        if (dim != 192) continue;
        all.push_back({.dtype = dtype, .head_dim = 192, .head_dim_v = 128, .backward = backward});
      }
    }
  }
  return all;
}

/// Of all queries.
KernelEntries attention_entries() {
  KernelEntries all;
  for (const attn::Kernel* kernel : attn::kernels("cuda")) {
    for (const attn::KernelQuery& query : queries()) all = all + kernel->entries(query);
  }
  return all;
}

/// Those of `doctor` and of counters run alone.
bool is_a_probe(const std::string& name) {
  return name.find("6engine") != std::string::npos || name.find("4cost") != std::string::npos ||
         name.find("4attn") + name.find("3moe") + name.find("4comm") == 3 * std::string::npos;
}

TEST(KernelCode, OfEveryKernelThatIsBuiltIsLoadedByBind) {
  std::set<const void*> listed =
      set_of(attention_entries() + attn::row_entries() + moe::cuda::entries());
  if (comm::nccl::built()) listed.merge(set_of(comm::nccl::pack_entries()));
  listed.merge(set_of(moe::cuda::pointer_entries()));
  listed.merge(set_of(moe::sm90::grouped_entries()));
  std::set<const void*> registered;
  for (const auto& [entry, name] : registered_kernels()) {
    if (!is_a_probe(name)) registered.insert(entry);
  }
  EXPECT_GT(registered.size(), 100U);
  EXPECT_EQ(names_of(without(registered, listed)), "");
  EXPECT_EQ(without(listed, registered).size(), 0U);
}

TEST(KernelCode, IsWhatIsAskedFor) {
  noted_launches().clear();
  load_kernels(attn::row_entries());
  EXPECT_EQ(noted_launches().loaded, set_of(attn::row_entries()));
}

/// Rows of a caller with `gap` elements between tokens, at `offset` elements.
attn::DeviceRows rows(DType dtype, const attn::RowShape& shape, std::int64_t gap,
                      std::int64_t offset) {
  const std::int64_t token = shape.heads * shape.dims + gap;
  return {reinterpret_cast<void*>(std::uintptr_t{4096} +
                                  static_cast<std::uintptr_t>(offset * size_of(dtype))),
          dtype, shape.tokens * token, token, shape.dims};
}

TEST(KernelCode, OfRowOperationsIsThatOfAnyPlace) {
  noted_launches().clear();
  const attn::DeviceRows none;
  for (const DType dtype : kDTypes) {
    for (const std::int64_t dims : {1, 16, 20}) {
      for (const std::int64_t gap : {0, 3, 4, 8}) {
        for (const std::int64_t offset : {0, 1, 4}) {
          const attn::RowShape shape{2, 7, 5, dims};
          const attn::DeviceRows x = rows(dtype, shape, gap, offset);
          const attn::DeviceRows one = rows(DType::f32, {2, 7, 5, 1}, 0, 0);
          attn::launch_convert(x, x, shape, nullptr);
          attn::launch_zero(x, shape, nullptr);
          attn::launch_row_sums(x, x, one, shape, nullptr);
          attn::launch_reduce(x, x, true, shape, nullptr);
          attn::launch_merge(x, one, x, one, none, shape, nullptr);
          const attn::RowWork work{x, x, shape};
          attn::launch_row_works({&work, 1}, nullptr, 0, nullptr, false);
        }
      }
    }
  }
  attn::launch_begin({}, 0, nullptr);
  attn::launch_fill(nullptr, 1, 0, nullptr);
  EXPECT_EQ(names_of(without(set_of(attn::row_entries()), noted_launches().launched)), "");
  EXPECT_EQ(names_of(without(noted_launches().launched, set_of(attn::row_entries()))), "");
}

struct Attend {
  Attend(const attn::KernelQuery& query, bool joined)
      : launch(make_launch({.batch = 2,
                            .seq = 150,
                            .seq_kv = 150,
                            .heads = 4,
                            .heads_kv = 2,
                            .head_dim = query.head_dim,
                            .head_dim_v = query.head_dim_v,
                            .dtype = query.dtype,
                            .softcap = query.softcap ? 30.0 : 0.0,
                            .softmax_scale = 0.1},
                           segments_cut_at(150, {}), {.rows = 64, .keys = 64})),
        tiles(launch.tiles),
        index(attn::make_tile_index(tiles)) {
    if (!joined) return;
    attn::JoinedTiles whole = attn::join_tiles(tiles, index);
    tiles = whole.tiles;
    index = whole.index;
  }

  attn::AttendGeometry geometry() const {
    attn::AttendGeometry g = launch.geometry();
    g.tiles = tiles;
    g.row_tiles = index.row_tiles;
    g.tiles_by_key = index.tiles_by_key;
    g.key_tiles = index.key_tiles;
    g.places = index.places;
    return g;
  }

  TestLaunch launch;
  std::vector<attn::Tile> tiles;
  attn::TileIndex index;
};

/// Launches nothing that runs: memory is never read.
void launch_with_gap(const attn::Kernel& kernel, const attn::KernelQuery& query, std::int64_t gap,
                     bool deterministic) {
  const Attend attend(query, kernel.joined_tiles && !deterministic);
  const auto tensor = [&](DType dtype, std::int64_t heads, std::int64_t dim) {
    return TestTensor(dtype, 2, 150, heads, dim, gap);
  };
  TestTensor q = tensor(query.dtype, 4, query.head_dim), k = tensor(query.dtype, 2, query.head_dim),
             v = tensor(query.dtype, 2, query.head_dim_v),
             out = tensor(query.dtype, 4, query.head_dim_v), lse = tensor(DType::f32, 4, 1),
             dq = tensor(DType::f32, 4, query.head_dim), dk = tensor(DType::f32, 2, query.head_dim),
             dv = tensor(DType::f32, 2, query.head_dim_v);
  std::vector<std::byte> workspace(std::size_t{1} << 24);
  std::int64_t flops = 0;
  attn::LaunchContext context;
  context.flops = &flops;
  context.workspace = workspace;
  context.deterministic = deterministic;
  if (!query.backward) {
    kernel.forward({.geometry = attend.geometry(),
                    .q = q.input(),
                    .k = k.input(),
                    .v = v.input(),
                    .out = out.output(),
                    .lse = lse.output(),
                    .state = {}},
                   context);
    return;
  }
  kernel.backward({.geometry = attend.geometry(),
                   .q = q.input(),
                   .k = k.input(),
                   .v = v.input(),
                   .dout = out.input(),
                   .lse = lse.input(),
                   .delta = lse.input(),
                   .dq = dq.output(),
                   .dk = dk.output(),
                   .dv = dv.output(),
                   .dq_assign = true,
                   .dkv_assign = true},
                  context);
}

/// `hopper` where operands do not suit it: where they do, it wants a driver.
TEST(KernelCode, OfAttendsIsThatOfAnyPlace) {
  for (const attn::Kernel* kernel : attn::kernels("cuda")) {
    for (attn::KernelQuery query : queries()) {
      for (const std::int64_t gap : {1, 8}) {
        if (kernel->name == "hopper" && gap == 8) continue;
        for (const bool choice : {false, true}) {
          query.softcap = choice;
          noted_launches().clear();
          launch_with_gap(*kernel, query, gap, choice);
          const std::string text = std::string(kernel->name) + " " +
                                   std::string(name_of(query.dtype)) + " " +
                                   std::to_string(query.head_dim) + " gap " + std::to_string(gap);
          ASSERT_FALSE(noted_launches().launched.empty()) << text;
          EXPECT_EQ(names_of(without(noted_launches().launched, set_of(kernel->entries(query)))),
                    "")
              << text;
        }
      }
    }
  }
}

}  // namespace
}  // namespace annulus::testing
