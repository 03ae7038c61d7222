#ifndef ANNULUS_ANNULUS_C_COST_H
#define ANNULUS_ANNULUS_C_COST_H

/* Cost on paper: no mesh, no device. A part of annulus_c.h, which says the conventions. */

#include <annulus/annulus_c.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { ANNULUS_PREFILL = 0, ANNULUS_DECODE = 1, ANNULUS_CHUNKED = 2 };
enum { ANNULUS_ORIGINAL = 0, ANNULUS_CORRECTED = 1 };
enum {
  ANNULUS_WIDTH_F32 = 0,
  ANNULUS_WIDTH_BF16 = 1,
  ANNULUS_WIDTH_INT8 = 2,
  ANNULUS_WIDTH_FP8 = 3,
  ANNULUS_WIDTH_FP6 = 4,
  ANNULUS_WIDTH_INT4 = 5,
  ANNULUS_WIDTH_FP4 = 6,
  ANNULUS_WIDTH_INT2 = 7
};

typedef struct annulus_cost_request {
  size_t size;
  int32_t stage;
  int32_t mode;          /* ANNULUS_CORRECTED */
  int64_t batch;         /* 1 */
  int64_t heads;         /* 1 */
  int64_t heads_kv;      /* -1: heads */
  int64_t head_dim;      /* 64 */
  int64_t head_dim_v;    /* -1: head_dim */
  int64_t layers;        /* 1 */
  int64_t seq;           /* prefill */
  int64_t seq_kv;        /* prefill; -1: seq */
  int64_t prompt;        /* decode */
  int64_t generated;     /* decode */
  int64_t beam;          /* decode; 1 */
  const char* chunks;    /* chunked: "0:300,2048:212", past:new; NULL: none */
  const char* decode_kv; /* chunked: "80,4x2048,1/4/1000/37"; NULL: none */
  int64_t sp;            /* 1 */
  int64_t tp;            /* 1 */
  int64_t ep;            /* 1 */
  double softmax_factor; /* 3 */
  /* sp entries, of one head of one batch element; NULL: causal, shared out evenly. */
  const int64_t* masked_pairs_by_rank;
  double peak_tflops; /* of one rank; 0: no time is predicted */
} annulus_cost_request;
ANNULUS_API void annulus_cost_request_init(annulus_cost_request* request, size_t size);

/* The accountings beside each other: schema annulus.cost/1, or the table of `annulus cost`. */
ANNULUS_API annulus_status annulus_price_json(const annulus_cost_request* request, char** text,
                                              annulus_error* error);
ANNULUS_API annulus_status annulus_price_text(const annulus_cost_request* request, char** text,
                                              annulus_error* error);

/* GenZ's roofline of a dense model: docs/cost.md says what it counts. */
typedef struct annulus_latency_request {
  size_t size;
  int32_t stage;
  int32_t mode;      /* ANNULUS_ORIGINAL */
  int32_t precision; /* ANNULUS_WIDTH_BF16 */
  int32_t offload;   /* 0 */
  int64_t hidden;
  int64_t heads;    /* 1 */
  int64_t heads_kv; /* -1: heads */
  int64_t head_dim; /* 64 */
  int64_t ffn;
  int64_t ffn_inputs; /* 2: a gate beside the up projection */
  int64_t vocab;
  int64_t layers; /* 1 */
  double tflops;  /* of the device: dense bf16, 1e12 */
  double memory_gib;
  double memory_gib_s;
  double link_gib_s;
  double link_latency_us; /* 1 */
  double onchip_gib_s;    /* 18000 */
  double host_gib_s;      /* 128 */
  double efficiency;      /* 1 */
  int64_t batch;          /* 1 */
  int64_t seq;
  int64_t prompt;
  int64_t generated;
  int64_t beam; /* 1 */
  const char* chunks;
  const char* decode_kv;
  int64_t tp;            /* 1 */
  int64_t sp;            /* 1 */
  int64_t pp;            /* 1 */
  double softmax_factor; /* 1 */
} annulus_latency_request;
ANNULUS_API void annulus_latency_request_init(annulus_latency_request* request, size_t size);

typedef struct annulus_latency {
  size_t size;
  int32_t fits;
  int32_t offloaded;
  int64_t macs;
  int64_t attention_macs;
  double latency_s;
  double attention_s;
  double linear_s;
  double comm_s;
  double weight_bytes;
  double cache_bytes;
  double throughput_per_s;
} annulus_latency;
/* `latency->size` says how much may be written. */
ANNULUS_API annulus_status annulus_latency_estimate(const annulus_latency_request* request,
                                                    annulus_latency* latency, annulus_error* error);
/* `count` stages, each by GenZ and by the fork's two modes: schema annulus.latency/1, or tables.
   Their `mode` is ignored; `softmax_factor` is that of the fork's modes. */
ANNULUS_API annulus_status annulus_latency_compare_json(
    const annulus_latency_request* const* stages, int64_t count, char** text, annulus_error* error);
ANNULUS_API annulus_status annulus_latency_compare_text(
    const annulus_latency_request* const* stages, int64_t count, char** text, annulus_error* error);

#ifdef __cplusplus
}
#endif

#endif
