#include <annulus/local_kernel.h>

#include "attention/bands.h"
#include "attention/execute/launches.h"
#include "attention/row_table.h"
#include "runtime/base/buffer.h"
#include "runtime/engine/request.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <initializer_list>
#include <memory>

namespace annulus {
namespace {

template <typename Pointer>
void require_shape(const char* name, const BasicTensorView<Pointer>& view, DType dtype,
                   std::initializer_list<std::int64_t> shape) {
  const ConstTensorView expected(nullptr, dtype, shape);
  if (view.data != nullptr && view.dtype == dtype && view.rank == expected.rank &&
      view.shape == expected.shape && view.strides[static_cast<std::size_t>(view.rank - 1)] == 1) {
    return;
  }
  throw InvalidArgument(fmt::format("{} is {}{}: must be {} with a last stride of 1", name,
                                    view.data == nullptr ? "null, " : "", describe(view),
                                    describe(expected)));
}

/// [batch, tokens, heads, dim]
template <typename Pointer>
attn::Operand<Pointer> operand(const BasicTensorView<Pointer>& view) {
  return {view.data, view.dtype, view.strides[0], view.strides[1], view.strides[2]};
}

/// [batch, heads, tokens]
attn::Output lse_operand(const TensorView& view) {
  return {view.data, view.dtype, view.strides[0], view.strides[2], view.strides[1]};
}

}  // namespace

namespace {

/// On a GPU a kernel runs as the attention of one rank, which has no transfer.
struct OneRank {
  OneRank(const Problem& problem, const LocalOptions& options)
      : session(mesh, session_options(problem, options)),
        attention(session, problem, attention_options(options)) {}

  static SessionOptions session_options(const Problem& problem, const LocalOptions& options) {
    SessionOptions o;
    o.max_problem = problem;
    o.kernel = options.kernel;
    o.backward = false;
    o.tile_q = options.tile_q;
    o.tile_k = options.tile_k;
    o.backend = options.backend;
    o.device = options.device;
    return o;
  }

  static AttentionOptions attention_options(const LocalOptions& options) {
    AttentionOptions o;
    o.kernel = options.kernel;
    o.tile_q = options.tile_q;
    o.tile_k = options.tile_k;
    return o;
  }

  Mesh mesh = Mesh::single();
  Session session;
  Attention attention;
};

}  // namespace

struct LocalKernel::Impl {
  Impl(const Problem& p, const LocalOptions& options)
      : problem(resolved(p)),
        threads(options.threads),
        kernel(attn::find_kernel(options.kernel,
                                 attn::kernel_query(problem, Pass::forward, options.backend))),
        name(kernel.name) {
    const std::vector<attn::Band> bands = attn::compile_bands(problem);
    const TokenRange rows{.begin = 0, .count = problem.seq};
    const TokenRange all_keys{.begin = 0, .count = *problem.seq_kv};
    const attn::RowTable table(bands, std::span(&rows, 1));
    const attn::TileLimits own =
        attn::tiles_for(kernel, attn::kernel_query(problem, Pass::forward, options.backend));
    const attn::TileGrid grid{options.tile_q > 0 ? options.tile_q : own.rows,
                              options.tile_k > 0 ? options.tile_k : own.keys};
    intervals = table.intervals();
    table.tiles(grid, 0, all_keys, tiles);
    queries = {{.row = 0, .token = 0, .count = problem.seq}};
    keys = {{.token = 0, .position = 0, .stride = 1, .count = *problem.seq_kv}};
    if (options.backend == "cpu") {
      workspace = Buffer(kernel.workspace_bytes(geometry(), false, threads));
    } else {
      on_device = std::make_unique<OneRank>(problem, options);
    }
  }

  attn::AttendGeometry geometry() const {
    attn::AttendGeometry g;
    g.batch = problem.batch;
    g.heads = problem.heads;
    g.group = problem.heads / *problem.heads_kv;
    g.head_dim = problem.head_dim;
    g.head_dim_v = *problem.head_dim_v;
    g.softmax_scale = *problem.softmax_scale;
    g.softcap = problem.softcap;
    g.rows = problem.seq;
    g.queries = queries;
    g.keys = keys;
    g.tiles = tiles;
    g.intervals = intervals;
    return g;
  }

  void require(const ConstTensorView& q, const ConstTensorView& k, const ConstTensorView& v,
               const TensorView& out, const TensorView& lse) const {
    const Problem& p = problem;
    require_shape("q", q, p.dtype, {p.batch, p.seq, p.heads, p.head_dim});
    require_shape("k", k, p.dtype, {p.batch, *p.seq_kv, *p.heads_kv, p.head_dim});
    require_shape("v", v, p.dtype, {p.batch, *p.seq_kv, *p.heads_kv, *p.head_dim_v});
    require_shape("out", out, p.dtype, {p.batch, p.seq, p.heads, *p.head_dim_v});
    require_shape("lse", lse, DType::f32, {p.batch, p.heads, p.seq});
  }

  Problem problem;
  int threads;
  const attn::Kernel& kernel;
  std::string name;
  std::vector<RowIntervals> intervals;
  std::vector<attn::Tile> tiles;
  std::vector<attn::QuerySegment> queries;
  std::vector<attn::KeySegment> keys;
  Buffer workspace;
  std::unique_ptr<OneRank> on_device;  ///< null on the CPU
  LocalCounters counters;
};

std::vector<LocalKernelInfo> local_kernels(const Problem& problem, const std::string& backend) {
  const attn::KernelQuery query = attn::kernel_query(resolved(problem), Pass::forward, backend);
  std::vector<LocalKernelInfo> list;
  for (const attn::Kernel* kernel : attn::kernels(backend)) {
    const attn::TileLimits tiles = attn::tiles_for(*kernel, query);
    list.push_back({std::string(kernel->name), std::string(kernel->backend), tiles.rows, tiles.keys,
                    kernel->refuses(query)});
  }
  return list;
}

LocalKernel::LocalKernel(const Problem& problem, const LocalOptions& options)
    : impl_(std::make_unique<Impl>(problem, options)) {}
LocalKernel::LocalKernel(LocalKernel&&) noexcept = default;
LocalKernel::~LocalKernel() = default;

void LocalKernel::forward(const ConstTensorView& q, const ConstTensorView& k,
                          const ConstTensorView& v, const TensorView& out, const TensorView& lse,
                          Stream stream) {
  Impl& self = *impl_;
  self.require(q, k, v, out, lse);
  self.counters = {};
  self.counters.materialized_bytes = self.kernel.materialized_bytes(self.geometry(), false);
  if (self.on_device) {
    self.on_device->attention.forward(q, k, v, out, lse, stream);
    return;
  }
  attn::LaunchContext context;
  context.threads = self.threads;
  context.flops = &self.counters.flops;
  context.workspace = {self.workspace.data(), static_cast<std::size_t>(self.workspace.bytes())};
  context.traffic_bytes = &self.counters.traffic_bytes;
  attn::ForwardParams params;
  params.geometry = self.geometry();
  params.q = operand(q);
  params.k = operand(k);
  params.v = operand(v);
  params.out = operand(out);
  params.lse = lse_operand(lse);
  self.kernel.forward(params, context);
}

const std::string& LocalKernel::name() const { return impl_->name; }

const LocalCounters& LocalKernel::counters() const {
  Impl& self = *impl_;
  if (self.on_device) {
    const CallStats stats = self.on_device->attention.stats(Pass::forward);
    self.counters.flops = stats.flops;
    self.counters.seconds = stats.total_s;
  }
  return self.counters;
}

}  // namespace annulus
