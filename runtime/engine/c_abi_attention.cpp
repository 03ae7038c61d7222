// The C interface to sessions and attention.
#include "runtime/engine/c_abi.h"

#include <span>
#include <vector>

using annulus::InvalidArgument;
using namespace annulus::c_abi;

namespace {

annulus::SessionOptions options_of(const annulus_session_options* given) {
  need(given, "session options");
  const annulus_session_options o = taken(given, annulus_session_options_init, "session options");
  if (o.arena_bytes < 0) throw InvalidArgument("arena_bytes is negative");
  annulus::SessionOptions options{.max_problem = problem_of(o.max_problem),
                                  .algorithm = algorithm_of(o.algorithm),
                                  .layout = layout_of(o.layout),
                                  .outer = algorithm_of(o.outer),
                                  .kernel = o.kernel == nullptr ? "auto" : o.kernel,
                                  .backward = o.backward != 0,
                                  .arena = {},
                                  .threads = o.threads};
  if (o.backend != nullptr) options.backend = o.backend;
  if (o.transport != nullptr) options.transport = o.transport;
  options.device = o.device;
  options.ranks_per_host = o.ranks_per_host;
  options.nccl = o.nccl;
  if (o.peer_copies != nullptr) options.peer_copies = o.peer_copies;
  options.backward_moves = backward_moves_of(o.backward_moves);
  if (o.arena != nullptr) {
    options.arena = {static_cast<std::byte*>(o.arena), static_cast<std::size_t>(o.arena_bytes)};
  }
  return options;
}

annulus::AttentionOptions options_of(const annulus_attention_options* given) {
  const annulus_attention_options o =
      taken(given, annulus_attention_options_init, "attention options");
  annulus::AttentionOptions options{.algorithm = algorithm_of(o.algorithm),
                                    .layout = layout_of(o.layout),
                                    .outer = algorithm_of(o.outer)};
  if (o.kernel != nullptr) options.kernel = o.kernel;
  options.tile_q = o.tile_q;
  options.tile_k = o.tile_k;
  options.deterministic = o.deterministic != 0;
  options.blocking_transfers = o.blocking_transfers != 0;
  options.gather_at_once = o.gather_at_once != 0;
  options.gather_push = o.gather_push != 0;
  options.ulysses_slices = o.ulysses_slices;
  options.sm_limit = o.sm_limit;
  options.backward_moves = backward_moves_of(o.backward_moves);
  return options;
}

annulus::Attention& attention_of(annulus_attention* handle) {
  return need(handle, "attention").attention;
}

const annulus::Attention& attention_of(const annulus_attention* handle) {
  return need(handle, "attention").attention;
}

int checked(const annulus::Sharding& sharding, int32_t rank) {
  if (rank < 0 || rank >= sharding.world()) {
    throw InvalidArgument("rank " + std::to_string(rank) + " is not allowed; allowed: 0 to " +
                          std::to_string(sharding.world() - 1));
  }
  return rank;
}

const annulus::Shard& shard_of(const annulus_attention* handle, int32_t rank, int32_t keys) {
  const annulus::Sharding& sharding = attention_of(handle).layout();
  checked(sharding, rank);
  return keys != 0 ? sharding.shard_kv(rank) : sharding.shard(rank);
}

void write(const std::vector<int64_t>& list, int64_t* to) {
  if (!list.empty()) std::ranges::copy(list, &need(to, "positions"));
}

void write(const annulus::CallStats& s, annulus_call_stats* to) {
  give(annulus_call_stats{.size = 0,
                          .total_s = s.total_s,
                          .exposed_s = s.exposed_s,
                          .bytes_sent = s.bytes_sent,
                          .flops = s.flops},
       to, "stats");
}

}  // namespace

extern "C" {

annulus_status annulus_session_create(annulus_mesh* mesh, const annulus_session_options* options,
                                      annulus_session** session, annulus_error* error) {
  return made(session, error, [&] {
    const auto& ranks = need(mesh, "mesh").mesh;
    return annulus_session{ranks, std::make_shared<annulus::Session>(*ranks, options_of(options))};
  });
}

void annulus_session_free(annulus_session* session) { delete session; }

int64_t annulus_session_arena_bytes(const annulus_session* session) {
  return session == nullptr ? -1 : session->session->arena_bytes();
}

annulus_status annulus_attention_create(annulus_session* session, const annulus_problem* problem,
                                        const annulus_attention_options* options,
                                        annulus_attention** attention, annulus_error* error) {
  return made(attention, error, [&] {
    annulus_session& owner = need(session, "session");
    return annulus_attention{
        owner.mesh, owner.session,
        annulus::Attention(*owner.session, problem_of(problem), options_of(options))};
  });
}

void annulus_attention_free(annulus_attention* attention) { delete attention; }

annulus_status annulus_attention_forward(annulus_attention* attention, const annulus_tensor* q,
                                         const annulus_tensor* k, const annulus_tensor* v,
                                         const annulus_tensor* out, const annulus_tensor* lse,
                                         void* stream, annulus_error* error) {
  return guarded(error, [&] {
    attention_of(attention).forward(view_of(q, "q"), view_of(k, "k"), view_of(v, "v"),
                                    view_of(out, "out"), view_of(lse, "lse"), stream);
  });
}

annulus_status annulus_attention_backward(annulus_attention* attention, const annulus_tensor* dout,
                                          const annulus_tensor* q, const annulus_tensor* k,
                                          const annulus_tensor* v, const annulus_tensor* out,
                                          const annulus_tensor* lse, const annulus_tensor* dq,
                                          const annulus_tensor* dk, const annulus_tensor* dv,
                                          void* stream, annulus_error* error) {
  return guarded(error, [&] {
    attention_of(attention).backward(view_of(dout, "dout"), view_of(q, "q"), view_of(k, "k"),
                                     view_of(v, "v"), view_of(out, "out"), view_of(lse, "lse"),
                                     view_of(dq, "dq"), view_of(dk, "dk"), view_of(dv, "dv"),
                                     stream);
  });
}

int64_t annulus_attention_seq_local(const annulus_attention* attention, int32_t rank) {
  int64_t tokens = -1;
  guarded(nullptr, [&] {
    const annulus::Sharding& sharding = attention_of(attention).layout();
    tokens = sharding.seq_local(checked(sharding, rank));
  });
  return tokens;
}

int64_t annulus_attention_seq_kv_local(const annulus_attention* attention, int32_t rank) {
  int64_t tokens = -1;
  guarded(nullptr, [&] {
    const annulus::Sharding& sharding = attention_of(attention).layout();
    tokens = sharding.seq_kv_local(checked(sharding, rank));
  });
  return tokens;
}

annulus_status annulus_attention_positions(const annulus_attention* attention, int32_t rank,
                                           int64_t* positions, annulus_error* error) {
  return guarded(error, [&] {
    const annulus::Sharding& sharding = attention_of(attention).layout();
    write(sharding.positions(checked(sharding, rank)), positions);
  });
}

annulus_status annulus_attention_positions_kv(const annulus_attention* attention, int32_t rank,
                                              int64_t* positions, annulus_error* error) {
  return guarded(error, [&] {
    const annulus::Sharding& sharding = attention_of(attention).layout();
    write(sharding.positions_kv(checked(sharding, rank)), positions);
  });
}

annulus_status annulus_attention_shard(const annulus_attention* attention, int32_t rank,
                                       int32_t keys, const annulus_tensor* full,
                                       const annulus_tensor* local, annulus_error* error) {
  return guarded(error, [&] {
    annulus::shard(shard_of(attention, rank, keys), view_of(full, "full"), view_of(local, "local"));
  });
}

annulus_status annulus_attention_unshard(const annulus_attention* attention, int32_t rank,
                                         int32_t keys, const annulus_tensor* local,
                                         const annulus_tensor* full, annulus_error* error) {
  return guarded(error, [&] {
    annulus::unshard(shard_of(attention, rank, keys), view_of(local, "local"),
                     view_of(full, "full"));
  });
}

int32_t annulus_attention_algorithm(const annulus_attention* attention) {
  return attention == nullptr ? -1 : static_cast<int32_t>(attention->attention.algorithm());
}

annulus_status annulus_attention_kernel_used(const annulus_attention* attention, char** text,
                                             annulus_error* error) {
  return told(text, error, [&] { return attention_of(attention).kernel_used(); });
}

annulus_status annulus_attention_fallback_reason(const annulus_attention* attention, char** text,
                                                 annulus_error* error) {
  return told(text, error, [&] { return attention_of(attention).fallback_reason(); });
}

annulus_status annulus_attention_cost_json(const annulus_attention* attention, char** text,
                                           annulus_error* error) {
  return told(text, error, [&] { return annulus::to_json(attention_of(attention).cost()); });
}

annulus_status annulus_attention_cost_text(const annulus_attention* attention, char** text,
                                           annulus_error* error) {
  return told(text, error, [&] { return annulus::to_text(attention_of(attention).cost()); });
}

annulus_status annulus_attention_stats(const annulus_attention* attention, int32_t pass,
                                       annulus_call_stats* stats, annulus_error* error) {
  return guarded(error, [&] { write(attention_of(attention).stats(pass_of(pass)), stats); });
}

annulus_status annulus_attention_transfers_alone(annulus_attention* attention, int32_t pass,
                                                 annulus_call_stats* stats, annulus_error* error) {
  return guarded(error,
                 [&] { write(attention_of(attention).transfers_alone(pass_of(pass)), stats); });
}

}  // extern "C"
