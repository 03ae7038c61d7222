#ifndef ANNULUS_ANNULUS_C_LOCAL_H
#define ANNULUS_ANNULUS_C_LOCAL_H

/* One kernel on one rank, without mesh or plan. A part of annulus_c.h, which says the conventions.
 */

#include <annulus/annulus_c.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct annulus_local_options {
  size_t size;
  const char* kernel; /* NULL: auto */
  int32_t threads;    /* 1 */
  int32_t reserved;
  int64_t tile_q; /* 0: the kernel's own */
  int64_t tile_k;
} annulus_local_options;
ANNULUS_API void annulus_local_options_init(annulus_local_options* options, size_t size);

/* Every kernel, best first, a line each: name, back end, tile_q, tile_k, why it does not serve
   `problem` (empty: it does), with tabs between. */
ANNULUS_API annulus_status annulus_local_kernels(const annulus_problem* problem, char** text,
                                                 annulus_error* error);
/* Forward without mesh or plan, to compare kernels. Takes all memory here. `options` may be NULL.
 */
ANNULUS_API annulus_status annulus_local_kernel_create(const annulus_problem* problem,
                                                       const annulus_local_options* options,
                                                       annulus_local_kernel** kernel,
                                                       annulus_error* error);
ANNULUS_API void annulus_local_kernel_free(annulus_local_kernel* kernel);
/* Tensors as of annulus_attention_forward with seq_local = seq. One call at a time. */
ANNULUS_API annulus_status annulus_local_kernel_forward(
    annulus_local_kernel* kernel, const annulus_tensor* q, const annulus_tensor* k,
    const annulus_tensor* v, const annulus_tensor* out, const annulus_tensor* lse,
    annulus_error* error);
ANNULUS_API annulus_status annulus_local_kernel_name(const annulus_local_kernel* kernel,
                                                     char** text, annulus_error* error);

typedef struct annulus_local_counters {
  size_t size;
  int64_t flops;
  int64_t traffic_bytes;
  int64_t materialized_bytes;
} annulus_local_counters;
/* Of the last call. `counters->size` says how much may be written. */
ANNULUS_API annulus_status annulus_local_kernel_counters(const annulus_local_kernel* kernel,
                                                         annulus_local_counters* counters,
                                                         annulus_error* error);

#ifdef __cplusplus
}
#endif

#endif
