/* The C interface from C99: what each part promises, on one rank and on four threads. Inputs are
   such that the answer is known: q = 0 makes row i of causal attention the mean of v[0..i], and its
   lse log(i + 1). The package test builds this against the installed library too. */
#define _POSIX_C_SOURCE 200112L
#include <annulus/annulus_c.h>

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { kSeq = 37, kRanks = 4 };

#define CHECK(condition)                                                      \
  do {                                                                        \
    if (!(condition)) {                                                       \
      fprintf(stderr, "FAILED: %s:%d: %s\n", __FILE__, __LINE__, #condition); \
      exit(1);                                                                \
    }                                                                         \
  } while (0)

static void must(annulus_status status, const annulus_error* error) {
  if (status == ANNULUS_OK) return;
  fprintf(stderr, "FAILED: %s: %s\n", annulus_status_name(status), error->text);
  exit(1);
}

static annulus_problem small_problem(void) {
  annulus_problem problem;
  annulus_problem_init(&problem, sizeof problem);
  problem.seq = kSeq;
  problem.heads = 2;
  problem.heads_kv = 1;
  problem.head_dim = 8;
  return problem;
}

static annulus_tensor compact(float* data, int64_t a, int64_t b, int64_t c, int64_t d) {
  annulus_tensor tensor;
  const int64_t shape[4] = {a, b, c, d};
  annulus_tensor_init(&tensor, data, ANNULUS_F32, d == 0 ? 3 : 4, shape);
  return tensor;
}

/* Forward and backward as one rank of `mesh`; the caller's handles go in the wrong order. */
static void run_rank(annulus_mesh* mesh) {
  annulus_error error = {0, ""};
  annulus_problem problem = small_problem();
  annulus_session_options options;
  annulus_session* session;
  annulus_attention* attention;
  const int32_t rank = annulus_mesh_rank(mesh);
  annulus_session_options_init(&options, sizeof options);
  options.max_problem = &problem;
  must(annulus_session_create(mesh, &options, &session, &error), &error);
  CHECK(annulus_session_arena_bytes(session) >= 0);
  must(annulus_attention_create(session, &problem, NULL, &attention, &error), &error);
  annulus_session_free(session);
  must(annulus_mesh_barrier(mesh, &error), &error);
  annulus_mesh_free(mesh);

  const int64_t n = annulus_attention_seq_local(attention, rank);
  CHECK(n > 0 && n == annulus_attention_seq_kv_local(attention, rank));
  CHECK(annulus_attention_algorithm(attention) != ANNULUS_AUTOMATIC);
  int64_t positions[kSeq];
  must(annulus_attention_positions(attention, rank, positions, &error), &error);

  float full[kSeq * 8], v[kSeq * 8], k[kSeq * 8] = {0}, dk[kSeq * 8], dv[kSeq * 8];
  float q[kSeq * 16] = {0}, out[kSeq * 16], dout[kSeq * 16], dq[kSeq * 16], lse[kSeq * 2];
  for (int i = 0; i < kSeq * 8; ++i) full[i] = (float)(i / 8) + 1;
  for (int i = 0; i < kSeq * 16; ++i) dout[i] = 1;
  annulus_tensor t_full = compact(full, 1, kSeq, 1, 8), t_v = compact(v, 1, n, 1, 8);
  must(annulus_attention_shard(attention, rank, 1, &t_full, &t_v, &error), &error);
  annulus_tensor t_q = compact(q, 1, n, 2, 8), t_k = compact(k, 1, n, 1, 8);
  annulus_tensor t_out = compact(out, 1, n, 2, 8), t_lse = compact(lse, 1, 2, n, 0);
  annulus_tensor t_dout = compact(dout, 1, n, 2, 8), t_dq = compact(dq, 1, n, 2, 8);
  annulus_tensor t_dk = compact(dk, 1, n, 1, 8), t_dv = compact(dv, 1, n, 1, 8);

  must(annulus_attention_forward(attention, &t_q, &t_k, &t_v, &t_out, &t_lse, NULL, &error),
       &error);
  for (int64_t i = 0; i < n; ++i) {
    const double p = (double)positions[i];
    for (int d = 0; d < 16; ++d) CHECK(fabs(out[i * 16 + d] - (p / 2 + 1)) < 1e-4);
    for (int h = 0; h < 2; ++h) CHECK(fabs(lse[h * n + i] - log(p + 1)) < 1e-4);
  }
  must(annulus_attention_backward(attention, &t_dout, &t_q, &t_k, &t_v, &t_out, &t_lse, &t_dq,
                                  &t_dk, &t_dv, NULL, &error),
       &error);
  for (int64_t i = 0; i < n; ++i) { /* dv[j] = 2 heads * sum over rows i >= j of 1 / (i + 1) */
    double expected = 0;
    for (int64_t row = positions[i]; row < kSeq; ++row) expected += 2.0 / (double)(row + 1);
    CHECK(fabs(dv[i * 8] - expected) < 1e-4);
  }

  char* text;
  must(annulus_attention_cost_json(attention, &text, &error), &error);
  CHECK(strstr(text, "annulus.cost/1") != NULL);
  annulus_text_free(text);
  must(annulus_attention_kernel_used(attention, &text, &error), &error);
  CHECK(strlen(text) > 0);
  annulus_text_free(text);
  annulus_call_stats stats;
  stats.size = sizeof stats;
  must(annulus_attention_stats(attention, ANNULUS_FORWARD, &stats, &error), &error);
  CHECK(stats.size == sizeof stats && stats.flops > 0 && stats.total_s > 0);
  annulus_attention_free(attention);
}

static void* run_thread(void* mesh) {
  run_rank((annulus_mesh*)mesh);
  return NULL;
}

static void four_threads_agree_with_arithmetic(void) {
  annulus_error error;
  annulus_mesh* meshes[kRanks];
  pthread_t threads[kRanks];
  must(annulus_mesh_threads(kRanks, 1, NULL, meshes, &error), &error);
  for (int r = 0; r < kRanks; ++r) {
    CHECK(annulus_mesh_world(meshes[r]) == kRanks && annulus_mesh_rank(meshes[r]) == r);
    CHECK(pthread_create(&threads[r], NULL, run_thread, meshes[r]) == 0);
  }
  for (int r = 0; r < kRanks; ++r) pthread_join(threads[r], NULL);
}

static void one_rank_agrees_with_arithmetic(void) {
  annulus_error error;
  annulus_mesh* mesh;
  must(annulus_mesh_single(NULL, &mesh, &error), &error);
  run_rank(mesh);
}

static void wrong_arguments_become_statuses_with_a_text(void) {
  annulus_error error = {0, ""};
  annulus_problem problem = small_problem();
  annulus_plan* plan;
  problem.heads_kv = 3;
  CHECK(annulus_plan_make(&problem, NULL, ANNULUS_RING, 4, 1, ANNULUS_FORWARD, &plan, &error) ==
        ANNULUS_INVALID_ARGUMENT);
  CHECK(plan == NULL && error.status == ANNULUS_INVALID_ARGUMENT && strstr(error.text, "3"));
  CHECK(annulus_plan_make(&problem, NULL, ANNULUS_RING, 4, 1, 0, &plan, NULL) != ANNULUS_OK);
  CHECK(annulus_plan_make(NULL, NULL, ANNULUS_RING, 4, 1, 0, &plan, &error) ==
        ANNULUS_INVALID_ARGUMENT);
  problem = small_problem();
  CHECK(annulus_plan_make(&problem, NULL, 9, 4, 1, 0, &plan, &error) == ANNULUS_INVALID_ARGUMENT);
  CHECK(strstr(error.text, "algorithm 9"));
  CHECK(annulus_plan_make(&problem, NULL, ANNULUS_RING, 4, 1, 0, NULL, &error) ==
        ANNULUS_INVALID_ARGUMENT);
  CHECK(annulus_attention_forward(NULL, NULL, NULL, NULL, NULL, NULL, NULL, &error) ==
        ANNULUS_INVALID_ARGUMENT);
  CHECK(annulus_attention_seq_local(NULL, 0) == -1 && annulus_mesh_rank(NULL) == -1);
  annulus_plan_free(NULL);
}

/* A struct may come from an older or a newer header than the library. */
static void structs_of_other_sizes_are_understood(void) {
  annulus_error error;
  struct {
    annulus_problem known;
    int64_t later;
  } newer;
  annulus_plan* plan;
  annulus_problem_init(&newer.known, sizeof newer);
  CHECK(newer.later == 0);
  newer.known.seq = kSeq;
  must(annulus_plan_make(&newer.known, NULL, ANNULUS_RING, 2, 1, 0, &plan, &error), &error);
  annulus_plan_free(plan);
  newer.later = 1;
  CHECK(annulus_plan_make(&newer.known, NULL, ANNULUS_RING, 2, 1, 0, &plan, &error) ==
        ANNULUS_INVALID_ARGUMENT);
  CHECK(strstr(error.text, "does not know"));

  annulus_problem older = small_problem();
  older.size = offsetof(annulus_problem, softcap);
  older.softcap = -1; /* beyond its size: not read */
  must(annulus_plan_make(&older, NULL, ANNULUS_RING, 2, 1, 0, &plan, &error), &error);
  annulus_plan_totals totals;
  totals.size = offsetof(annulus_plan_totals, flops);
  totals.flops = -7;
  must(annulus_plan_totals_of(plan, 0, &totals, &error), &error);
  CHECK(totals.masked_pairs > 0 && totals.flops == -7); /* beyond its size: not written */
  annulus_plan_free(plan);
  older.size = 0;
  CHECK(annulus_plan_make(&older, NULL, ANNULUS_RING, 2, 1, 0, &plan, &error) ==
        ANNULUS_INVALID_ARGUMENT);
}

static void plans_count_every_pair_once(void) {
  annulus_error error;
  annulus_problem problem = small_problem();
  annulus_mask *documents, *window, *both;
  annulus_layout* layout;
  annulus_plan* plan;
  const int64_t lengths[3] = {20, 0, 17};
  must(annulus_mask_documents(lengths, 3, 1, &documents, &error), &error);
  must(annulus_mask_window(4, 0, ANNULUS_BOTTOM_RIGHT, &window, &error), &error);
  must(annulus_mask_and(documents, window, &both, &error), &error);
  must(annulus_layout_named(ANNULUS_STRIPED, &layout, &error), &error);
  problem.mask = both;
  must(annulus_plan_make(&problem, layout, ANNULUS_GATHER, 3, 1, ANNULUS_BACKWARD, &plan, &error),
       &error);
  annulus_mask_free(both); /* the plan has its own */
  annulus_mask_free(documents);
  annulus_mask_free(window);
  annulus_layout_free(layout);
  int64_t pairs = 0;
  CHECK(annulus_plan_world(plan) == 3 && annulus_plan_hash(plan) != 0);
  for (int32_t r = 0; r < 3; ++r) {
    annulus_plan_totals totals;
    totals.size = sizeof totals;
    must(annulus_plan_totals_of(plan, r, &totals, &error), &error);
    pairs += totals.masked_pairs;
  }
  CHECK(pairs == 2 * ((20 * 5 - 10) + (17 * 5 - 10))); /* heads x rows of up to 5 keys */
  char* faults;
  must(annulus_plan_check(plan, &faults, &error), &error);
  CHECK(strcmp(faults, "") == 0);
  annulus_text_free(faults);
  annulus_plan_free(plan);
}

static void merge_weighs_by_lse(void) {
  annulus_error error;
  float a[2] = {1, 3}, a_lse[1] = {0}, b[2] = {5, 7}, b_lse[1] = {0};
  must(annulus_merge(a, a_lse, b, b_lse, 1, 2, &error), &error);
  CHECK(fabs(a[0] - 3) < 1e-6 && fabs(a[1] - 5) < 1e-6 && fabs(a_lse[0] - log(2)) < 1e-6);
  CHECK(annulus_merge(a, NULL, b, b_lse, 1, 2, &error) == ANNULUS_INVALID_ARGUMENT);
}

static int64_t pairs_of(const annulus_mask* mask, int64_t seq_kv) {
  annulus_error error;
  annulus_problem problem = small_problem();
  annulus_plan* plan;
  annulus_plan_totals totals;
  problem.heads = 1;
  problem.seq = 4;
  problem.seq_kv = seq_kv;
  problem.mask = mask;
  totals.size = sizeof totals;
  must(annulus_plan_make(&problem, NULL, ANNULUS_RING, 1, 1, ANNULUS_FORWARD, &plan, &error),
       &error);
  must(annulus_plan_totals_of(plan, 0, &totals, &error), &error);
  annulus_plan_free(plan);
  return totals.masked_pairs;
}

static void masks_of_any_shape_are_taken(void) {
  annulus_error error;
  annulus_mask *dense, *lists, *segments;
  const uint8_t allowed[4 * 7] = {1, 0, 1, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0,
                                  1, 1, 1, 1, 1, 1, 1, 0, 1, 0, 1, 0, 1, 0};
  must(annulus_mask_dense(allowed, 4, 7, &dense, &error), &error);
  CHECK(pairs_of(dense, 7) == 4 + 0 + 7 + 3);
  const int64_t counts[4] = {3, 0, 1, 2}, intervals[12] = {0, 1, 2, 3, 4, 7, 0, 7, 1, 2, 3, 6};
  must(annulus_mask_lists(counts, intervals, 4, &lists, &error), &error);
  CHECK(pairs_of(lists, 7) == 5 + 0 + 7 + 4);
  const int64_t ids[4] = {5, 6, 5, -1};
  must(annulus_mask_segments(ids, 4, NULL, 0, &segments, &error), &error);
  CHECK(pairs_of(segments, 4) == 2 + 1 + 2 + 0);
  annulus_mask_free(segments);
  const int64_t ids_kv[7] = {5, 5, 6, 5, -1, 6, 5};
  must(annulus_mask_segments(ids, 4, ids_kv, 7, &segments, &error), &error);
  CHECK(pairs_of(segments, 7) == 4 + 2 + 4 + 0);
  annulus_mask_free(segments);
  annulus_mask_free(lists);
  annulus_mask_free(dense);
  CHECK(annulus_mask_lists(counts, (const int64_t[]){3, 4, 2, 3, 5, 6}, 1, &lists, &error) ==
        ANNULUS_INVALID_ARGUMENT);
  CHECK(lists == NULL && strstr(error.text, "got [2, 3)") != NULL);
  CHECK(annulus_mask_dense(NULL, 4, 7, &dense, &error) == ANNULUS_INVALID_ARGUMENT);
}

/* One kernel without a mesh: q = 0 under a causal mask gives means, as above. */
static void a_local_kernel_agrees_with_arithmetic(void) {
  annulus_error error;
  annulus_problem problem = small_problem();
  annulus_local_options options;
  annulus_local_kernel* kernel;
  char* text;
  must(annulus_local_kernels(&problem, &text, &error), &error);
  CHECK(strncmp(text, "flash2\tcpu\t", 11) == 0 && strstr(text, "\nreference\t") != NULL);
  annulus_text_free(text);
  annulus_local_options_init(&options, sizeof options);
  options.kernel = "flash1";
  must(annulus_local_kernel_create(&problem, &options, &kernel, &error), &error);
  must(annulus_local_kernel_name(kernel, &text, &error), &error);
  CHECK(strcmp(text, "flash1") == 0);
  annulus_text_free(text);
  float q[kSeq * 16] = {0}, k[kSeq * 8] = {0}, v[kSeq * 8], out[kSeq * 16], lse[kSeq * 2];
  for (int i = 0; i < kSeq * 8; ++i) v[i] = (float)(i / 8) + 1;
  annulus_tensor t_q = compact(q, 1, kSeq, 2, 8), t_k = compact(k, 1, kSeq, 1, 8);
  annulus_tensor t_v = compact(v, 1, kSeq, 1, 8), t_out = compact(out, 1, kSeq, 2, 8);
  annulus_tensor t_lse = compact(lse, 1, 2, kSeq, 0);
  must(annulus_local_kernel_forward(kernel, &t_q, &t_k, &t_v, &t_out, &t_lse, &error), &error);
  for (int i = 0; i < kSeq; ++i) {
    for (int d = 0; d < 16; ++d) CHECK(fabs(out[i * 16 + d] - (i / 2.0 + 1)) < 1e-4);
    for (int h = 0; h < 2; ++h) CHECK(fabs(lse[h * kSeq + i] - log(i + 1.0)) < 1e-4);
  }
  annulus_local_counters counters;
  counters.size = sizeof counters;
  must(annulus_local_kernel_counters(kernel, &counters, &error), &error);
  CHECK(counters.flops >= 2 * 2 * 16 * kSeq * (kSeq + 1) / 2 && counters.traffic_bytes > 0);
  CHECK(annulus_local_kernel_forward(kernel, &t_k, &t_k, &t_v, &t_out, &t_lse, &error) ==
        ANNULUS_INVALID_ARGUMENT);
  annulus_local_kernel_free(kernel);
  annulus_local_kernel_free(NULL);
  options.kernel = "no such kernel";
  CHECK(annulus_local_kernel_create(&problem, &options, &kernel, &error) != ANNULUS_OK);
  CHECK(kernel == NULL && strstr(error.text, "no such kernel") != NULL);
}

static void prices_are_those_of_the_formulas(void) {
  annulus_error error;
  annulus_cost_request request;
  char* text;
  annulus_cost_request_init(&request, sizeof request);
  request.seq = 80;
  request.heads = 32;
  request.head_dim = 128;
  request.sp = 2;
  must(annulus_price_json(&request, &text, &error), &error);
  /* Corrected: heads * seq * seq * head_dim MACs of the logits; original: seq // sp keys. */
  CHECK(strstr(text, "26214400") != NULL && strstr(text, "13107200") != NULL);
  annulus_text_free(text);
  must(annulus_price_text(&request, &text, &error), &error);
  CHECK(strlen(text) > 100);
  annulus_text_free(text);
  request.stage = ANNULUS_CHUNKED;
  request.chunks = "0-300";
  CHECK(annulus_price_json(&request, &text, &error) == ANNULUS_INVALID_ARGUMENT);
  CHECK(text == NULL && strstr(error.text, "0-300") != NULL);
  CHECK(annulus_price_json(NULL, &text, &error) == ANNULUS_INVALID_ARGUMENT);
}

static void latencies_add_up(void) {
  annulus_error error;
  annulus_latency_request request;
  annulus_latency latency;
  char* text;
  annulus_latency_request_init(&request, sizeof request);
  request.hidden = 4096;
  request.heads = 32;
  request.head_dim = 128;
  request.ffn = 11008;
  request.vocab = 32000;
  request.layers = 32;
  request.tflops = 989;
  request.memory_gib = 80;
  request.memory_gib_s = 3350;
  request.link_gib_s = 450;
  request.seq = 512;
  latency.size = sizeof latency;
  must(annulus_latency_estimate(&request, &latency, &error), &error);
  CHECK(latency.fits == 1 && latency.offloaded == 0);
  CHECK(latency.attention_macs == 2LL * 32 * 32 * 512 * 512 * 128);
  CHECK(fabs(latency.latency_s - latency.attention_s - latency.linear_s - latency.comm_s) <
        1e-9 * latency.latency_s);
  const annulus_latency_request* stages[2] = {&request, &request};
  must(annulus_latency_compare_json(stages, 2, &text, &error), &error);
  CHECK(strstr(text, "annulus.latency/1") != NULL);
  annulus_text_free(text);
  must(annulus_latency_compare_text(stages, 1, &text, &error), &error);
  CHECK(strlen(text) > 100);
  annulus_text_free(text);
  request.precision = 8;
  CHECK(annulus_latency_estimate(&request, &latency, &error) == ANNULUS_INVALID_ARGUMENT);
  CHECK(strstr(error.text, "precision 8") != NULL);
}

int main(void) {
  one_rank_agrees_with_arithmetic();
  four_threads_agree_with_arithmetic();
  wrong_arguments_become_statuses_with_a_text();
  structs_of_other_sizes_are_understood();
  plans_count_every_pair_once();
  merge_weighs_by_lse();
  masks_of_any_shape_are_taken();
  a_local_kernel_agrees_with_arithmetic();
  prices_are_those_of_the_formulas();
  latencies_add_up();
  printf("annulus %s from C: all hold\n", annulus_version());
  return 0;
}
