// flash2: which of its variants serves a launch.
#include "attention/kernels/cuda/launch.h"

#include <cstdint>
#include <initializer_list>

namespace annulus::attn::cuda {

/// A pass with one dtype and head dim, on tensor cores.
template <typename Params>
struct Variant {
  void (*launch)(const Params&, const LaunchContext&) = nullptr;
  KernelEntries (*entries)() = nullptr;
};

#define ANNULUS_FLASH2_forward(dtype, dim)                                         \
  void flash2_forward_##dtype##_##dim(const ForwardParams&, const LaunchContext&); \
  KernelEntries flash2_forward_entries_##dtype##_##dim();
#define ANNULUS_FLASH2_backward(dtype, dim)                                          \
  void flash2_backward_##dtype##_##dim(const BackwardParams&, const LaunchContext&); \
  KernelEntries flash2_backward_entries_##dtype##_##dim();
#include <flash2_variants.inc>
#undef ANNULUS_FLASH2_forward
#undef ANNULUS_FLASH2_backward

namespace {

Variant<ForwardParams> forward_variant(DType type, std::int64_t head_dim) {
#define ANNULUS_FLASH2_forward(dtype, dim)                                             \
  if (type == DType::dtype && head_dim == (dim)) {                                     \
    return {&flash2_forward_##dtype##_##dim, &flash2_forward_entries_##dtype##_##dim}; \
  }
#define ANNULUS_FLASH2_backward(dtype, dim)
#include <flash2_variants.inc>
#undef ANNULUS_FLASH2_forward
#undef ANNULUS_FLASH2_backward
  return {};
}

Variant<BackwardParams> backward_variant(DType type, std::int64_t head_dim) {
#define ANNULUS_FLASH2_forward(dtype, dim)
#define ANNULUS_FLASH2_backward(dtype, dim)                                              \
  if (type == DType::dtype && head_dim == (dim)) {                                       \
    return {&flash2_backward_##dtype##_##dim, &flash2_backward_entries_##dtype##_##dim}; \
  }
#include <flash2_variants.inc>
#undef ANNULUS_FLASH2_forward
#undef ANNULUS_FLASH2_backward
  return {};
}

template <typename Pointer>
bool aligned(const Operand<Pointer>& operand) {
  const std::int64_t size = size_of(operand.dtype);
  const auto address = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(operand.data));
  return ((address | operand.batch_stride * size | operand.token_stride * size |
           operand.head_stride * size) &
          15) == 0;
}

bool of_type(DType dtype, std::initializer_list<DType> types) {
  for (const DType type : types) {
    if (type != dtype) return false;
  }
  return true;
}

/// K and V, of whichever source.
template <typename Params>
bool aligned_keys(const Params& p) {
  const AttendGeometry& g = p.geometry;
  bool good = aligned(p.k) && aligned(p.v) && g.sources_on_host.size() == g.sources.size();
  for (const KeySource& source : g.sources_on_host) {
    good = good && of_type(p.q.dtype, {source.k.dtype, source.v.dtype}) && aligned(source.k) &&
           aligned(source.v);
  }
  return good;
}

bool serves(const AttendGeometry& g) { return g.head_dim == g.head_dim_v && g.softmax_scale > 0.0; }

}  // namespace

void flash2_forward(const ForwardParams& params, const LaunchContext& context) {
  const ForwardParams& p = params;
  const auto launch = forward_variant(p.q.dtype, p.geometry.head_dim).launch;
  const bool state = p.resume || !p.finish;
  if (launch == nullptr || !serves(p.geometry) || !of_type(p.q.dtype, {p.k.dtype, p.v.dtype}) ||
      (p.finish && p.out.dtype != p.q.dtype) || !aligned(p.q) || !aligned_keys(p) ||
      (p.finish && !aligned(p.out)) || (state && !aligned(p.state))) {
    plain_forward(params, context);
    return;
  }
  check_arguments(p.geometry, context, false, 0);
  fill_unvisited_rows(params, context);
  if (!p.geometry.tiles.empty() && p.geometry.heads > 0 && p.geometry.batch > 0) {
    launch(params, context);
  }
}

bool flash2_rounds_dkv(const KernelQuery& query) {
  return backward_variant(query.dtype, query.head_dim).launch != nullptr &&
         query.head_dim == query.head_dim_v;
}

void flash2_backward(const BackwardParams& params, const LaunchContext& context) {
  const BackwardParams& p = params;
  const auto launch = backward_variant(p.q.dtype, p.geometry.head_dim).launch;
  if (launch == nullptr || !serves(p.geometry) ||
      !of_type(p.q.dtype, {p.k.dtype, p.v.dtype, p.dout.dtype}) || !aligned(p.q) ||
      !aligned_keys(p) || !aligned(p.dout) || !aligned(p.dq) || !aligned(p.dk) || !aligned(p.dv)) {
    plain_backward(params, context);
    return;
  }
  const std::int64_t turns = turn_count(p.geometry);
  check_arguments(p.geometry, context, true, turns * static_cast<std::int64_t>(sizeof(int)));
  (void)rounds_dkv(p);
  clear_gradients(params, context, context.deterministic ? turns : 0, KeyGradients::kernel_assigns);
  if (!p.geometry.tiles.empty() && p.geometry.heads > 0 && p.geometry.batch > 0) {
    launch(params, context);
  }
}

/// What it launches where operands are not aligned too.
KernelEntries flash2_entries(const KernelQuery& query) {
  const auto variant = query.backward ? backward_variant(query.dtype, query.head_dim).entries
                                      : forward_variant(query.dtype, query.head_dim).entries;
  KernelEntries all = query.backward ? plain_backward_entries() : plain_forward_entries();
  return variant == nullptr ? all : all + variant();
}

}  // namespace annulus::attn::cuda
