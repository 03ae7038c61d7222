#pragma once

#include "attention/kernels/params.h"
#include "attention/kernels/tile_index.h"
#include "runtime/base/kernel_entries.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace annulus::attn {

/// What a kernel must serve.
struct KernelQuery {
  DType dtype = DType::f32;
  std::int64_t head_dim = 64;
  std::int64_t head_dim_v = 64;
  bool backward = false;
  std::string_view backend = "cpu";
  bool softcap = false;
  std::int64_t keys = 0;  ///< of the whole sequence; 0: not known
  double softmax_scale = 1.0;
};

/// One row of the dispatch table: a local kernel, forward and backward, and what it covers.
struct Kernel {
  std::string_view name;      ///< "flash2", "flash1", "naive", "reference", "hopper"
  std::string_view backend;   ///< "cpu", "cuda"
  bool by_name_only = false;  ///< "auto" does not take it
  std::int64_t tile_q = 64;   ///< the tile grid it wants
  std::int64_t tile_k = 64;
  /// The same where it depends on what is to be served; null: tile_q x tile_k always (tiles_for).
  TileLimits (*tiles)(const KernelQuery& query) = nullptr;
  /// It takes tiles of any number of keys by row, and by key of any number of rows, where the order
  /// of dQ is free (tile_index.h, join_tiles).
  bool joined_tiles = false;
  bool zeroes_flops = false;  ///< it knows LaunchContext::flops_assign
  /// Bytes: a launch that meets a tensor whose address or strides are no multiple of it goes to
  /// another kernel, which no query tells. 0: it takes all.
  std::int64_t row_alignment = 0;
  /// Does its backward take dk and dv in the dtype of q (BackwardParams)? Null: never.
  bool (*rounds_dkv)(const KernelQuery& query) = nullptr;
  /// Empty, or why it cannot serve.
  std::string (*refuses)(const KernelQuery& query) = nullptr;
  /// Bytes of LaunchContext::workspace for a launch of this geometry. A kernel that takes joined
  /// tiles says so by the sizes of row_tiles and key_tiles, if they are there, and not by how many
  /// tiles are listed, which is the launch's choice. More of either may not take less.
  std::int64_t (*workspace_bytes)(const AttendGeometry& geometry, bool backward,
                                  int threads) = nullptr;
  /// What launches of a forward's lists want beside them from call to call, such as an order of
  /// query tiles: made once, of lists that the host can read; null: nothing.
  std::vector<std::byte> (*make_kept)(const AttendGeometry& geometry) = nullptr;
  /// It grows with rows times keys: sessions make no room for it unasked.
  bool quadratic_workspace = false;
  /// Of workspace_bytes, what the algorithm materialises, for any thread count: S and P of
  /// naive, O, l and m of flash1. The rest is the blocks that threads work in.
  std::int64_t (*materialized_bytes)(const AttendGeometry& geometry, bool backward) = nullptr;
  void (*forward)(const ForwardParams& params, const LaunchContext& context) = nullptr;
  void (*backward)(const BackwardParams& params, const LaunchContext& context) = nullptr;
  /// Of CUDA: all that forward, or backward, may launch for such a query, wherever its operands lie
  /// and however they are strided. Null: nothing is loaded ahead of calls.
  KernelEntries (*entries)(const KernelQuery& query) = nullptr;
};

/// Every kernel that is built, best first, the CPU's before those of devices, and then those that
/// are registered, in their order. Thread-safe, as are the other functions here.
std::vector<const Kernel*> kernels();

/// A row of the dispatch table while it lives: how a back end that is not built here comes in
/// (docs/backends.md). Owns a copy of the row; the strings it points to must outlive it, and it
/// must outlive whatever uses the kernel: sessions, attentions and pointers from kernels().
class RegisteredKernel {
 public:
  /// Throws InvalidArgument for a row that lacks a name, a tile or a function, or whose backend has
  /// a kernel of that name.
  explicit RegisteredKernel(const Kernel& row);
  RegisteredKernel(RegisteredKernel&&) noexcept = default;
  RegisteredKernel& operator=(RegisteredKernel&& other) noexcept;
  ~RegisteredKernel();

  const Kernel& kernel() const { return *row_; }

 private:
  std::shared_ptr<const Kernel> row_;
};

/// The largest tiles of the lists of a launch, and what they are cut into if nobody says otherwise.
inline TileLimits tiles_for(const Kernel& kernel, const KernelQuery& query) {
  if (kernel.tiles != nullptr) return kernel.tiles(query);
  return {kernel.tile_q, kernel.tile_k};
}

/// Those of one backend.
std::vector<const Kernel*> kernels(std::string_view backend);

/// The kernel of query.backend called `name` that serves `query`, or for "auto" the best one of
/// those that need not be named.
/// Throws Unsupported that names the query and the rows built.
const Kernel& find_kernel(std::string_view name, const KernelQuery& query);

}  // namespace annulus::attn
