#ifndef ANNULUS_ANNULUS_C_H
#define ANNULUS_ANNULUS_C_H

/* The library for C and for foreign function interfaces (ctypes, Rust, Fortran): what the C++
   headers offer, as opaque handles and status codes. Plain C99; no exception crosses.

   - A function that can fail returns a status and writes what went wrong to `error`, its last
     argument, unless that is NULL. Nothing is kept in globals, so any thread may call.
   - Enumerations are int32_t with the values below. A pointer `x** out` receives a new handle,
     NULL on failure; each has its _free, which takes NULL. Handles keep alive what they stand on,
   so they may be freed in any order; a mesh goes when the last of them goes.
   - Structs with a `size` field may grow: fill them with their _init function, which takes the size
     that the caller was compiled with. A field of 0 means its default unless it says otherwise.
   - Calls that are collective in C++ are collective here. */

#include <stddef.h>
#include <stdint.h>

#include <annulus/export.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef int32_t annulus_status;
enum {
  ANNULUS_OK = 0,
  ANNULUS_INVALID_ARGUMENT = 1,
  ANNULUS_UNSUPPORTED = 2,
  ANNULUS_DEVICE_ERROR = 3,
  ANNULUS_COMM_ERROR = 4, /* the mesh is dead */
  ANNULUS_TIMEOUT = 5,    /* the mesh is dead */
  ANNULUS_OUT_OF_MEMORY = 6,
  ANNULUS_INTERNAL_ERROR = 7
};

/* The caller's; written by the call that failed, untouched by those that succeed. */
typedef struct annulus_error {
  annulus_status status;
  char text[1020]; /* ends with 0; a longer text is cut */
} annulus_error;

enum { ANNULUS_F32 = 0, ANNULUS_F16 = 1, ANNULUS_BF16 = 2 };
enum { ANNULUS_BOTTOM_RIGHT = 0, ANNULUS_TOP_LEFT = 1 };
enum { ANNULUS_FORWARD = 0, ANNULUS_BACKWARD = 1 };
enum {
  ANNULUS_AUTOMATIC = 0,
  ANNULUS_RING = 1,
  ANNULUS_GATHER = 2,
  ANNULUS_ULYSSES = 3,
  ANNULUS_HYBRID = 4
};
/* What travels around a ring in backward: fewer bytes, or as said. */
enum { ANNULUS_MOVES_AUTOMATIC = 0, ANNULUS_MOVES_KEYS = 1, ANNULUS_MOVES_QUERIES = 2 };
enum { ANNULUS_CONTIGUOUS = 0, ANNULUS_ZIGZAG = 1, ANNULUS_STRIPED = 2, ANNULUS_BALANCED = 3 };

typedef struct annulus_mesh annulus_mesh;
typedef struct annulus_mask annulus_mask;
typedef struct annulus_layout annulus_layout;
typedef struct annulus_session annulus_session;
typedef struct annulus_attention annulus_attention;
typedef struct annulus_plan annulus_plan;
typedef struct annulus_local_kernel annulus_local_kernel;

/* "0.1.0" */
ANNULUS_API const char* annulus_version(void);
/* "InvalidArgument"; never NULL */
ANNULUS_API const char* annulus_status_name(annulus_status status);
/* For every char** that a call gives away. */
ANNULUS_API void annulus_text_free(char* text);

/* ---- Mesh ------------------------------------------------------------------------------------ */

typedef struct annulus_mesh_options {
  size_t size;
  double timeout_s;    /* of every wait; 60 */
  int32_t log_level;   /* 0 debug .. 4 off; -1: info on rank 0, warn on the others */
  const char* log_dir; /* also a file for each rank; NULL: none */
  /* Instead of standard error; may be called from several threads at once. */
  void (*log_sink)(int32_t level, const char* text, void* user);
  void* log_user;
} annulus_mesh_options;
ANNULUS_API void annulus_mesh_options_init(annulus_mesh_options* options, size_t size);

/* `options` may be NULL. */
ANNULUS_API annulus_status annulus_mesh_single(const annulus_mesh_options* options,
                                               annulus_mesh** mesh, annulus_error* error);
/* `meshes` receives ring * ulysses handles, one for each thread that will be a rank. */
ANNULUS_API annulus_status annulus_mesh_threads(int32_t ring, int32_t ulysses,
                                                const annulus_mesh_options* options,
                                                annulus_mesh** meshes, annulus_error* error);
/* From MPI_Comm_c2f(communicator); collective. */
ANNULUS_API annulus_status annulus_mesh_from_mpi(int32_t fortran_communicator, int32_t ring,
                                                 int32_t ulysses,
                                                 const annulus_mesh_options* options,
                                                 annulus_mesh** mesh, annulus_error* error);
/* From an ncclComm_t alone, for tensors on GPUs; it is split and stays the caller's. Collective. */
ANNULUS_API annulus_status annulus_mesh_from_nccl(void* communicator, int32_t ring, int32_t ulysses,
                                                  const annulus_mesh_options* options,
                                                  annulus_mesh** mesh, annulus_error* error);
/* Collective, unless something still stands on it. */
ANNULUS_API void annulus_mesh_free(annulus_mesh* mesh);
ANNULUS_API int32_t annulus_mesh_rank(const annulus_mesh* mesh);
ANNULUS_API int32_t annulus_mesh_world(const annulus_mesh* mesh);
/* Ends every wait of this rank with ANNULUS_COMM_ERROR, from another thread. */
ANNULUS_API void annulus_mesh_abort(annulus_mesh* mesh);
ANNULUS_API annulus_status annulus_mesh_barrier(annulus_mesh* mesh, annulus_error* error);
/* `all` holds world * bytes, in rank order. */
ANNULUS_API annulus_status annulus_mesh_all_gather(annulus_mesh* mesh, const void* mine,
                                                   int64_t bytes, void* all, annulus_error* error);

/* ---- Masks and layouts ----------------------------------------------------------------------- */

ANNULUS_API annulus_status annulus_mask_full(annulus_mask** mask, annulus_error* error);
ANNULUS_API annulus_status annulus_mask_causal(int32_t align, annulus_mask** mask,
                                               annulus_error* error);
/* i - left <= j <= i + right; -1 is unbounded. */
ANNULUS_API annulus_status annulus_mask_window(int64_t left, int64_t right, int32_t align,
                                               annulus_mask** mask, annulus_error* error);
ANNULUS_API annulus_status annulus_mask_documents(const int64_t* lengths, int64_t count,
                                                  int32_t causal, annulus_mask** mask,
                                                  annulus_error* error);
/* `count` entries: 0, then the running sum of the lengths. */
ANNULUS_API annulus_status annulus_mask_documents_from_cu_seqlens(const int32_t* cu_seqlens,
                                                                  int64_t count, int32_t causal,
                                                                  annulus_mask** mask,
                                                                  annulus_error* error);
ANNULUS_API annulus_status annulus_mask_prefix(int64_t length, int32_t align, annulus_mask** mask,
                                               annulus_error* error);
/* For each of `rows` query rows: begin, end, begin2, end2 of the keys that it sees; 0, 0 is none.
 */
ANNULUS_API annulus_status annulus_mask_rows(const int64_t* intervals, int64_t rows,
                                             annulus_mask** mask, annulus_error* error);
/* The same with any number of intervals: row i has counts[i] of them, ascending; `intervals` holds
   begin, end of each, row after row. */
ANNULUS_API annulus_status annulus_mask_lists(const int64_t* counts, const int64_t* intervals,
                                              int64_t rows, annulus_mask** mask,
                                              annulus_error* error);
/* Row-major [seq, seq_kv]: nonzero where query i may see key j. */
ANNULUS_API annulus_status annulus_mask_dense(const uint8_t* allowed, int64_t seq, int64_t seq_kv,
                                              annulus_mask** mask, annulus_error* error);
/* A query sees the keys of its own id; negative ids are padding. `ids_kv` NULL: those of the
   queries. */
ANNULUS_API annulus_status annulus_mask_segments(const int64_t* ids, int64_t count,
                                                 const int64_t* ids_kv, int64_t count_kv,
                                                 annulus_mask** mask, annulus_error* error);
/* Both must allow. */
ANNULUS_API annulus_status annulus_mask_and(const annulus_mask* a, const annulus_mask* b,
                                            annulus_mask** mask, annulus_error* error);
ANNULUS_API void annulus_mask_free(annulus_mask* mask);

ANNULUS_API annulus_status annulus_layout_named(int32_t kind, annulus_layout** layout,
                                                annulus_error* error);
/* The caller's own. `ranges` holds begin, count, stride of each range, rank after rank;
   `range_counts[r]` says how many are rank r's. The keys follow the _kv twins; NULL: the same. */
ANNULUS_API annulus_status annulus_layout_given(int32_t world, const int64_t* range_counts,
                                                const int64_t* ranges,
                                                const int64_t* range_counts_kv,
                                                const int64_t* ranges_kv, annulus_layout** layout,
                                                annulus_error* error);
ANNULUS_API void annulus_layout_free(annulus_layout* layout);

/* ---- Problem and tensors --------------------------------------------------------------------- */

/* What a struct points to is borrowed for the call alone. */
typedef struct annulus_problem {
  size_t size;
  int64_t batch; /* 1 */
  int64_t seq;
  int64_t seq_kv;     /* -1: seq */
  int64_t heads;      /* 1 */
  int64_t heads_kv;   /* -1: heads */
  int64_t head_dim;   /* 64 */
  int64_t head_dim_v; /* -1: head_dim */
  int32_t dtype;
  int32_t reserved;
  const annulus_mask* mask; /* NULL: causal */
  double softcap;           /* 0: off */
  double softmax_scale;     /* 0: 1 / sqrt(head_dim) */
} annulus_problem;
ANNULUS_API void annulus_problem_init(annulus_problem* problem, size_t size);

/* Borrowed memory; shape and strides in elements, the last stride 1. */
typedef struct annulus_tensor {
  void* data; /* inputs are not written */
  int32_t dtype;
  int32_t rank;
  int64_t shape[5];
  int64_t strides[5];
} annulus_tensor;
/* A compact row-major one. A rank outside 0 to 5 leaves it with rank 0. */
ANNULUS_API void annulus_tensor_init(annulus_tensor* tensor, void* data, int32_t dtype,
                                     int32_t rank, const int64_t* shape);

/* ---- Session and attention ------------------------------------------------------------------- */

typedef struct annulus_session_options {
  size_t size;
  const annulus_problem* max_problem;
  int32_t algorithm;
  int32_t outer;                /* hybrid: ANNULUS_RING or ANNULUS_GATHER */
  const annulus_layout* layout; /* NULL: zigzag */
  int32_t backward;             /* 1 */
  int32_t threads;              /* per rank; 1 */
  const char* kernel;           /* to leave workspace for; NULL: auto */
  void* arena;                  /* the caller's memory, 256-byte aligned; NULL: the library's own */
  int64_t arena_bytes;
  const char* backend;    /* "cpu", "cuda"; NULL: auto, cuda where a GPU is */
  const char* transport;  /* between GPUs: "peer", "nccl", "composite"; NULL: auto */
  int32_t device;         /* the GPU; -1: the ranks of a host take its GPUs in turn */
  int32_t ranks_per_host; /* 0; else so many ranks count as one host */
  /* ncclComm_t of the mesh's ranks in rank order, on the ranks' GPUs; NULL: made where needed. It
     stays the caller's, but after ANNULUS_TIMEOUT it was aborted and may not be used again. */
  void* nccl;
  const char* peer_copies; /* who moves data over peer: "pull", "push"; NULL: auto */
  int32_t backward_moves;  /* ANNULUS_MOVES_...: as the attentions will ask; AUTOMATIC: also KEYS */
  int32_t reserved;
} annulus_session_options;
ANNULUS_API void annulus_session_options_init(annulus_session_options* options, size_t size);

/* Collective. */
ANNULUS_API annulus_status annulus_session_create(annulus_mesh* mesh,
                                                  const annulus_session_options* options,
                                                  annulus_session** session, annulus_error* error);
ANNULUS_API void annulus_session_free(annulus_session* session);
ANNULUS_API int64_t annulus_session_arena_bytes(const annulus_session* session);

typedef struct annulus_attention_options {
  size_t size;
  int32_t algorithm;
  int32_t outer;
  const annulus_layout* layout; /* NULL: zigzag */
  const char* kernel;           /* NULL: auto */
  int64_t tile_q;               /* 0: the kernel's own */
  int64_t tile_k;
  int32_t deterministic;
  int32_t blocking_transfers;
  int32_t gather_at_once; /* nonzero: gather between GPUs is one launch; 0: one a slice */
  int32_t ulysses_slices; /* launches of a pass of ulysses; 0: chosen */
  int32_t sm_limit;       /* multiprocessors that a launch takes at most (`hopper`); 0: all */
  int32_t backward_moves; /* ANNULUS_MOVES_AUTOMATIC, ..._KEYS, ..._QUERIES: ring's backward */
} annulus_attention_options;
ANNULUS_API void annulus_attention_options_init(annulus_attention_options* options, size_t size);

/* Not collective: its first call asks whether all ranks made the same. `options` may be NULL. */
ANNULUS_API annulus_status annulus_attention_create(annulus_session* session,
                                                    const annulus_problem* problem,
                                                    const annulus_attention_options* options,
                                                    annulus_attention** attention,
                                                    annulus_error* error);
ANNULUS_API void annulus_attention_free(annulus_attention* attention);

/* Local shards: q, out, dout, dq [batch, seq_local, heads, dim]; k, v, dk, dv [batch, seq_kv_local,
   heads_kv, dim]; lse [batch, heads, seq_local] f32. `stream`: a CUDA stream, or NULL. */
ANNULUS_API annulus_status annulus_attention_forward(
    annulus_attention* attention, const annulus_tensor* q, const annulus_tensor* k,
    const annulus_tensor* v, const annulus_tensor* out, const annulus_tensor* lse, void* stream,
    annulus_error* error);
ANNULUS_API annulus_status annulus_attention_backward(
    annulus_attention* attention, const annulus_tensor* dout, const annulus_tensor* q,
    const annulus_tensor* k, const annulus_tensor* v, const annulus_tensor* out,
    const annulus_tensor* lse, const annulus_tensor* dq, const annulus_tensor* dk,
    const annulus_tensor* dv, void* stream, annulus_error* error);

/* -1 for a rank that is not. */
ANNULUS_API int64_t annulus_attention_seq_local(const annulus_attention* attention, int32_t rank);
ANNULUS_API int64_t annulus_attention_seq_kv_local(const annulus_attention* attention,
                                                   int32_t rank);
/* The global position of each local token: seq_local (seq_kv_local) entries. */
ANNULUS_API annulus_status annulus_attention_positions(const annulus_attention* attention,
                                                       int32_t rank, int64_t* positions,
                                                       annulus_error* error);
ANNULUS_API annulus_status annulus_attention_positions_kv(const annulus_attention* attention,
                                                          int32_t rank, int64_t* positions,
                                                          annulus_error* error);
/* A rank's tokens of a full tensor [batch, seq, ...] (with `keys`: [batch, seq_kv, ...]) to a local
   one, and back. */
ANNULUS_API annulus_status annulus_attention_shard(const annulus_attention* attention, int32_t rank,
                                                   int32_t keys, const annulus_tensor* full,
                                                   const annulus_tensor* local,
                                                   annulus_error* error);
ANNULUS_API annulus_status annulus_attention_unshard(const annulus_attention* attention,
                                                     int32_t rank, int32_t keys,
                                                     const annulus_tensor* local,
                                                     const annulus_tensor* full,
                                                     annulus_error* error);

/* What runs: ANNULUS_RING and so on, never ANNULUS_AUTOMATIC. */
ANNULUS_API int32_t annulus_attention_algorithm(const annulus_attention* attention);
ANNULUS_API annulus_status annulus_attention_kernel_used(const annulus_attention* attention,
                                                         char** text, annulus_error* error);
/* "" where the kernel that was asked for runs. */
ANNULUS_API annulus_status annulus_attention_fallback_reason(const annulus_attention* attention,
                                                             char** text, annulus_error* error);

/* The cost report: schema annulus.cost/1, or the table that `bench` prints. Collective. */
ANNULUS_API annulus_status annulus_attention_cost_json(const annulus_attention* attention,
                                                       char** text, annulus_error* error);
ANNULUS_API annulus_status annulus_attention_cost_text(const annulus_attention* attention,
                                                       char** text, annulus_error* error);

typedef struct annulus_call_stats {
  size_t size;
  double total_s;
  double exposed_s; /* waiting for transfers with nothing to compute */
  int64_t bytes_sent;
  int64_t flops;
} annulus_call_stats;

/* `stats->size` says how much may be written. */
ANNULUS_API annulus_status annulus_attention_stats(const annulus_attention* attention, int32_t pass,
                                                   annulus_call_stats* stats, annulus_error* error);
/* Plays the transfers of the last call again, with nothing computed; results become void. */
ANNULUS_API annulus_status annulus_attention_transfers_alone(annulus_attention* attention,
                                                             int32_t pass,
                                                             annulus_call_stats* stats,
                                                             annulus_error* error);

/* ---- Plans ----------------------------------------------------------------------------------- */

typedef struct annulus_plan_totals {
  size_t size;
  int64_t item_count;
  int64_t transfer_count;
  int64_t masked_pairs;
  int64_t flops;
  int64_t bytes_sent;
  int64_t bytes_received;
  int64_t arena_bytes;
  int64_t caller_bytes;
} annulus_plan_totals;

/* Pure: any number of ranks, no mesh. `layout` NULL: zigzag. */
ANNULUS_API annulus_status annulus_plan_make(const annulus_problem* problem,
                                             const annulus_layout* layout, int32_t algorithm,
                                             int32_t ring, int32_t ulysses, int32_t pass,
                                             annulus_plan** plan, annulus_error* error);
/* The plan that an attention plays. */
ANNULUS_API annulus_status annulus_attention_plan(const annulus_attention* attention, int32_t pass,
                                                  annulus_plan** plan, annulus_error* error);
ANNULUS_API void annulus_plan_free(annulus_plan* plan);
ANNULUS_API int32_t annulus_plan_world(const annulus_plan* plan);
ANNULUS_API uint32_t annulus_plan_hash(const annulus_plan* plan);
/* `totals->size` says how much may be written. */
ANNULUS_API annulus_status annulus_plan_totals_of(const annulus_plan* plan, int32_t rank,
                                                  annulus_plan_totals* totals,
                                                  annulus_error* error);
/* What is wrong with it, a line each; "": nothing. */
ANNULUS_API annulus_status annulus_plan_check(const annulus_plan* plan, char** text,
                                              annulus_error* error);

/* ---- Merging partial results ----------------------------------------------------------------- */

/* (into_o, into_lse) <- both: o [rows, dim] normalised, lse [rows] natural log, all fp32. */
ANNULUS_API annulus_status annulus_merge(float* into_o, float* into_lse, const float* other_o,
                                         const float* other_lse, int64_t rows, int64_t dim,
                                         annulus_error* error);

#ifdef __cplusplus
}
#endif

/* The rest of the interface. */
#include <annulus/annulus_c_cost.h>
#include <annulus/annulus_c_local.h>

#endif
