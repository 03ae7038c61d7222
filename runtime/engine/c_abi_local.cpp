// The C interface to single kernels.
#include "runtime/engine/c_abi.h"

using namespace annulus::c_abi;

namespace {

annulus::LocalOptions options_of(const annulus_local_options* given) {
  const annulus_local_options o = taken(given, annulus_local_options_init, "local options");
  if (o.threads < 1) {
    throw annulus::InvalidArgument("threads " + std::to_string(o.threads) +
                                   " is not allowed; allowed: 1 and more");
  }
  annulus::LocalOptions options{.threads = o.threads, .tile_q = o.tile_q, .tile_k = o.tile_k};
  if (o.kernel != nullptr) options.kernel = o.kernel;
  return options;
}

}  // namespace

extern "C" {

annulus_status annulus_local_kernels(const annulus_problem* problem, char** text,
                                     annulus_error* error) {
  return told(text, error, [&] {
    std::string lines;
    for (const annulus::LocalKernelInfo& k : annulus::local_kernels(problem_of(problem))) {
      lines += k.name + "\t" + k.backend + "\t" + std::to_string(k.tile_q) + "\t" +
               std::to_string(k.tile_k) + "\t" + k.refusal + "\n";
    }
    return lines;
  });
}

annulus_status annulus_local_kernel_create(const annulus_problem* problem,
                                           const annulus_local_options* options,
                                           annulus_local_kernel** kernel, annulus_error* error) {
  return made(kernel, error,
              [&] { return annulus::LocalKernel(problem_of(problem), options_of(options)); });
}

void annulus_local_kernel_free(annulus_local_kernel* kernel) { delete kernel; }

annulus_status annulus_local_kernel_forward(annulus_local_kernel* kernel, const annulus_tensor* q,
                                            const annulus_tensor* k, const annulus_tensor* v,
                                            const annulus_tensor* out, const annulus_tensor* lse,
                                            annulus_error* error) {
  return guarded(error, [&] {
    need(kernel, "kernel")
        .kernel.forward(view_of(q, "q"), view_of(k, "k"), view_of(v, "v"), view_of(out, "out"),
                        view_of(lse, "lse"));
  });
}

annulus_status annulus_local_kernel_name(const annulus_local_kernel* kernel, char** text,
                                         annulus_error* error) {
  return told(text, error, [&] { return need(kernel, "kernel").kernel.name(); });
}

annulus_status annulus_local_kernel_counters(const annulus_local_kernel* kernel,
                                             annulus_local_counters* counters,
                                             annulus_error* error) {
  return guarded(error, [&] {
    const annulus::LocalCounters& c = need(kernel, "kernel").kernel.counters();
    give(annulus_local_counters{.size = 0,
                                .flops = c.flops,
                                .traffic_bytes = c.traffic_bytes,
                                .materialized_bytes = c.materialized_bytes},
         counters, "counters");
  });
}

}  // extern "C"
