// The C interface to meshes, masks and layouts.
#include "runtime/engine/c_abi.h"

#include <array>
#include <span>
#include <utility>
#include <vector>

using annulus::InvalidArgument;
using annulus::Layout;
using annulus::Mask;
using annulus::Mesh;
using namespace annulus::c_abi;

namespace {

annulus::MeshOptions options_of(const annulus_mesh_options* given) {
  const annulus_mesh_options o = taken(given, annulus_mesh_options_init, "mesh options");
  annulus::MeshOptions options{.timeout_s = o.timeout_s, .log = {}};
  if (o.log_level < -1 || o.log_level > 4) {
    throw InvalidArgument("log_level " + std::to_string(o.log_level) +
                          " is not allowed; allowed: -1 to 4");
  }
  options.log.level = o.log_level;
  if (o.log_dir != nullptr) options.log.dir = o.log_dir;
  if (o.log_sink != nullptr) {
    options.log.sink = [sink = o.log_sink, user = o.log_user](annulus::LogLevel level,
                                                              std::string_view text) {
      sink(static_cast<int32_t>(level), std::string(text).c_str(), user);
    };
  }
  return options;
}

annulus_mesh handle_of(Mesh mesh) { return {std::make_shared<Mesh>(std::move(mesh))}; }

annulus::CausalAlign align_of(int32_t align) {
  return enumerated<annulus::CausalAlign>(align, 2, "align");
}

std::size_t count_of(int64_t count, const char* name) {
  if (count < 0) throw InvalidArgument(std::string(name) + " is negative");
  return static_cast<std::size_t>(count);
}

std::vector<annulus::Shard> shards_of(int32_t world, const int64_t* counts, const int64_t* ranges) {
  std::vector<annulus::Shard> shards(count_of(world, "world"));
  const int64_t* range = ranges;
  for (std::size_t rank = 0; rank < shards.size(); ++rank) {
    for (std::size_t i = count_of((&need(counts, "range_counts"))[rank], "a range count"); i > 0;
         --i, range += 3) {
      need(range, "ranges");
      shards[rank].push_back({.begin = range[0], .count = range[1], .stride = range[2]});
    }
  }
  return shards;
}

}  // namespace

extern "C" {

annulus_status annulus_mesh_single(const annulus_mesh_options* options, annulus_mesh** mesh,
                                   annulus_error* error) {
  return made(mesh, error, [&] { return handle_of(Mesh::single(options_of(options))); });
}

annulus_status annulus_mesh_threads(int32_t ring, int32_t ulysses,
                                    const annulus_mesh_options* options, annulus_mesh** meshes,
                                    annulus_error* error) {
  return guarded(error, [&] {
    need(meshes, "meshes");
    std::vector<std::unique_ptr<annulus_mesh>> handles;
    for (Mesh& mesh : Mesh::threads({.ring = ring, .ulysses = ulysses}, options_of(options))) {
      handles.push_back(std::make_unique<annulus_mesh>(handle_of(std::move(mesh))));
    }
    for (auto& handle : handles) *meshes++ = handle.release();
  });
}

annulus_status annulus_mesh_from_mpi(int32_t fortran_communicator, int32_t ring, int32_t ulysses,
                                     const annulus_mesh_options* options, annulus_mesh** mesh,
                                     annulus_error* error) {
  return made(mesh, error, [&] {
    return handle_of(Mesh::from_mpi(fortran_communicator, {.ring = ring, .ulysses = ulysses},
                                    options_of(options)));
  });
}

annulus_status annulus_mesh_from_nccl(void* communicator, int32_t ring, int32_t ulysses,
                                      const annulus_mesh_options* options, annulus_mesh** mesh,
                                      annulus_error* error) {
  return made(mesh, error, [&] {
    return handle_of(
        Mesh::from_nccl(communicator, {.ring = ring, .ulysses = ulysses}, options_of(options)));
  });
}

void annulus_mesh_free(annulus_mesh* mesh) { delete mesh; }

int32_t annulus_mesh_rank(const annulus_mesh* mesh) {
  return mesh == nullptr ? -1 : mesh->mesh->rank();
}

int32_t annulus_mesh_world(const annulus_mesh* mesh) {
  return mesh == nullptr ? -1 : mesh->mesh->world();
}

void annulus_mesh_abort(annulus_mesh* mesh) {
  if (mesh != nullptr) mesh->mesh->abort();
}

annulus_status annulus_mesh_barrier(annulus_mesh* mesh, annulus_error* error) {
  return guarded(error, [&] { annulus::barrier(*need(mesh, "mesh").mesh); });
}

annulus_status annulus_mesh_all_gather(annulus_mesh* mesh, const void* mine, int64_t bytes,
                                       void* all, annulus_error* error) {
  return guarded(error, [&] {
    Mesh& ranks = *need(mesh, "mesh").mesh;
    const std::size_t part = count_of(bytes, "bytes");
    const std::size_t whole = part * static_cast<std::size_t>(ranks.world());
    annulus::all_gather(ranks, std::span(static_cast<const std::byte*>(mine), part),
                        std::span(static_cast<std::byte*>(all), whole));
  });
}

annulus_status annulus_mask_full(annulus_mask** mask, annulus_error* error) {
  return made(mask, error, [&] { return Mask::full(); });
}

annulus_status annulus_mask_causal(int32_t align, annulus_mask** mask, annulus_error* error) {
  return made(mask, error, [&] { return Mask::causal(align_of(align)); });
}

annulus_status annulus_mask_window(int64_t left, int64_t right, int32_t align, annulus_mask** mask,
                                   annulus_error* error) {
  return made(mask, error, [&] { return Mask::window(left, right, align_of(align)); });
}

annulus_status annulus_mask_documents(const int64_t* lengths, int64_t count, int32_t causal,
                                      annulus_mask** mask, annulus_error* error) {
  return made(mask, error, [&] {
    const std::span given(&need(lengths, "lengths"), count_of(count, "count"));
    return Mask::documents({given.begin(), given.end()}, causal != 0);
  });
}

annulus_status annulus_mask_documents_from_cu_seqlens(const int32_t* cu_seqlens, int64_t count,
                                                      int32_t causal, annulus_mask** mask,
                                                      annulus_error* error) {
  return made(mask, error, [&] {
    const std::span given(&need(cu_seqlens, "cu_seqlens"), count_of(count, "count"));
    return Mask::documents_from_cu_seqlens(given, causal != 0);
  });
}

annulus_status annulus_mask_prefix(int64_t length, int32_t align, annulus_mask** mask,
                                   annulus_error* error) {
  return made(mask, error, [&] { return Mask::prefix(length, align_of(align)); });
}

annulus_status annulus_mask_rows(const int64_t* intervals, int64_t rows, annulus_mask** mask,
                                 annulus_error* error) {
  return made(mask, error, [&] {
    std::vector<annulus::RowIntervals> list(count_of(rows, "rows"));
    if (!list.empty()) need(intervals, "intervals");
    for (std::size_t row = 0; row < list.size(); ++row) {
      const int64_t* at = intervals + 4 * row;
      list[row] = {annulus::KeyInterval{at[0], at[1]}, annulus::KeyInterval{at[2], at[3]}};
    }
    return Mask::rows(std::move(list));
  });
}

annulus_status annulus_mask_lists(const int64_t* counts, const int64_t* intervals, int64_t rows,
                                  annulus_mask** mask, annulus_error* error) {
  return made(mask, error, [&] {
    annulus::KeyLists list;
    std::vector<annulus::KeyInterval> row;
    const int64_t* at = intervals;
    for (std::size_t i = 0; i < count_of(rows, "rows"); ++i) {
      row.clear();
      for (std::size_t n = count_of((&need(counts, "counts"))[i], "a count"); n > 0; --n, at += 2) {
        need(at, "intervals");
        row.push_back({at[0], at[1]});
      }
      list.add_row(row);
    }
    return Mask::lists(std::move(list));
  });
}

annulus_status annulus_mask_dense(const uint8_t* allowed, int64_t seq, int64_t seq_kv,
                                  annulus_mask** mask, annulus_error* error) {
  return made(mask, error, [&] {
    const std::size_t size = count_of(seq, "seq") * count_of(seq_kv, "seq_kv");
    if (size > 0) need(allowed, "allowed");
    return Mask::dense({allowed, size}, seq);
  });
}

annulus_status annulus_mask_segments(const int64_t* ids, int64_t count, const int64_t* ids_kv,
                                     int64_t count_kv, annulus_mask** mask, annulus_error* error) {
  return made(mask, error, [&] {
    const std::span given(&need(ids, "ids"), count_of(count, "count"));
    std::vector<int64_t> kv;
    if (ids_kv != nullptr) kv.assign(ids_kv, ids_kv + count_of(count_kv, "count_kv"));
    return Mask::segments({given.begin(), given.end()}, std::move(kv));
  });
}

annulus_status annulus_mask_and(const annulus_mask* a, const annulus_mask* b, annulus_mask** mask,
                                annulus_error* error) {
  return made(mask, error, [&] { return need(a, "a").mask & need(b, "b").mask; });
}

void annulus_mask_free(annulus_mask* mask) { delete mask; }

annulus_status annulus_layout_named(int32_t kind, annulus_layout** layout, annulus_error* error) {
  return made(layout, error, [&] {
    static constexpr std::array kMakers{Layout::contiguous, Layout::zigzag, Layout::striped,
                                        Layout::balanced};
    return kMakers.at(enumerated<std::size_t>(kind, 4, "layout"))();
  });
}

annulus_status annulus_layout_given(int32_t world, const int64_t* range_counts,
                                    const int64_t* ranges, const int64_t* range_counts_kv,
                                    const int64_t* ranges_kv, annulus_layout** layout,
                                    annulus_error* error) {
  return made(layout, error, [&] {
    std::vector<annulus::Shard> kv;
    if (range_counts_kv != nullptr) kv = shards_of(world, range_counts_kv, ranges_kv);
    return Layout::given(shards_of(world, range_counts, ranges), std::move(kv));
  });
}

void annulus_layout_free(annulus_layout* layout) { delete layout; }

}  // extern "C"
