// Defaults of the structs of the C interface: as much of them as the caller knows.
#include "runtime/engine/c_abi.h"

namespace {

template <typename T>
void copy_out(T defaults, T* to, std::size_t size) {
  if (to == nullptr) return;
  defaults.size = size;
  std::memcpy(static_cast<void*>(to), &defaults, std::min(size, sizeof defaults));
  if (size > sizeof defaults) {
    std::memset(reinterpret_cast<char*>(to) + sizeof defaults, 0, size - sizeof defaults);
  }
}

}  // namespace

extern "C" {

void annulus_mesh_options_init(annulus_mesh_options* options, size_t size) {
  annulus_mesh_options defaults{};
  defaults.timeout_s = annulus::MeshOptions{}.timeout_s;
  defaults.log_level = -1;
  copy_out(defaults, options, size);
}

void annulus_problem_init(annulus_problem* problem, size_t size) {
  annulus_problem defaults{};
  defaults.batch = 1;
  defaults.seq_kv = -1;
  defaults.heads = 1;
  defaults.heads_kv = -1;
  defaults.head_dim = 64;
  defaults.head_dim_v = -1;
  copy_out(defaults, problem, size);
}

void annulus_session_options_init(annulus_session_options* options, size_t size) {
  annulus_session_options defaults{};
  defaults.outer = ANNULUS_RING;
  defaults.backward = 1;
  defaults.threads = 1;
  defaults.device = -1;
  copy_out(defaults, options, size);
}

void annulus_attention_options_init(annulus_attention_options* options, size_t size) {
  annulus_attention_options defaults{};
  defaults.outer = ANNULUS_RING;
  defaults.gather_at_once = 1;
  defaults.gather_push = 1;
  copy_out(defaults, options, size);
}

void annulus_local_options_init(annulus_local_options* options, size_t size) {
  annulus_local_options defaults{};
  defaults.threads = 1;
  copy_out(defaults, options, size);
}

void annulus_cost_request_init(annulus_cost_request* request, size_t size) {
  const annulus::CostRequest preset;
  annulus_cost_request defaults{};
  defaults.mode = ANNULUS_CORRECTED;
  defaults.batch = preset.batch;
  defaults.heads = preset.heads;
  defaults.heads_kv = -1;
  defaults.head_dim = preset.head_dim;
  defaults.head_dim_v = -1;
  defaults.layers = preset.layers;
  defaults.seq_kv = -1;
  defaults.beam = preset.beam;
  defaults.sp = preset.sp;
  defaults.tp = preset.tp;
  defaults.ep = preset.ep;
  defaults.softmax_factor = preset.softmax_factor;
  copy_out(defaults, request, size);
}

void annulus_latency_request_init(annulus_latency_request* request, size_t size) {
  const annulus::LatencyRequest preset;
  annulus_latency_request defaults{};
  defaults.mode = ANNULUS_ORIGINAL;
  defaults.precision = ANNULUS_WIDTH_BF16;
  defaults.heads = preset.model.heads;
  defaults.heads_kv = -1;
  defaults.head_dim = preset.model.head_dim;
  defaults.ffn_inputs = preset.model.ffn_inputs;
  defaults.layers = preset.model.layers;
  defaults.link_latency_us = preset.system.link_latency_us;
  defaults.onchip_gib_s = preset.system.onchip_gib_s;
  defaults.host_gib_s = preset.system.host_gib_s;
  defaults.efficiency = preset.system.efficiency;
  defaults.batch = preset.batch;
  defaults.beam = preset.beam;
  defaults.tp = preset.tp;
  defaults.sp = preset.sp;
  defaults.pp = preset.pp;
  defaults.softmax_factor = preset.softmax_factor;
  copy_out(defaults, request, size);
}

void annulus_tensor_init(annulus_tensor* tensor, void* data, int32_t dtype, int32_t rank,
                         const int64_t* shape) {
  if (tensor == nullptr) return;
  *tensor = annulus_tensor{};
  tensor->data = data;
  tensor->dtype = dtype;
  if (rank < 0 || rank > annulus::TensorView::kMaxRank || shape == nullptr) return;
  tensor->rank = rank;
  int64_t stride = 1;
  for (int32_t d = rank - 1; d >= 0; --d) {
    tensor->shape[d] = shape[d];
    tensor->strides[d] = stride;
    stride *= shape[d];
  }
}

}  // extern "C"
