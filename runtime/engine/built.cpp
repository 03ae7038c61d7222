#include <annulus/built.h>

#include "attention/kernels/cpu/targets.h"
#include "attention/kernels/dispatch.h"
#include "comm/communicator.h"
#include "runtime/engine/device_pass.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <utility>

namespace annulus {

std::vector<KernelInfo> kernels_built() {
  std::vector<KernelInfo> list;
  for (const attn::Kernel* kernel : attn::kernels()) {
    list.push_back({.name = std::string(kernel->name), .backend = std::string(kernel->backend)});
  }
  return list;
}

std::string kernel_refusal(const std::string& name, const KernelAsk& ask) {
  for (const attn::Kernel* kernel : attn::kernels(ask.backend)) {
    if (kernel->name != name) continue;
    return kernel->refuses({.dtype = ask.dtype,
                            .head_dim = ask.head_dim,
                            .head_dim_v = ask.head_dim_v,
                            .backward = ask.pass == Pass::backward,
                            .backend = ask.backend,
                            .softmax_scale = ask.softmax_scale});
  }
  throw InvalidArgument(fmt::format("back end {} has no kernel '{}'", ask.backend, name));
}

std::vector<std::string> transports_built() {
  std::vector<std::string> names{"local"};
  if (comm::mpi_built()) names.emplace_back("mpi");
  for (std::string& name : engine::device_transports()) names.push_back(std::move(name));
  return names;
}

std::vector<std::string> simd_targets() { return attn::cpu::simd_targets(); }

}  // namespace annulus
