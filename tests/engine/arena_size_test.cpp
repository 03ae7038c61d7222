// A session's arena holds every attention that its options leave open, on GPUs, none of which is
// needed: launches ask for what they ask for when they are bound.

#include "runtime/engine/arena_size.h"

#include "attention/execute/launches.h"
#include "runtime/engine/request.h"
#include "tests/support/run_ranks.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

namespace annulus::testing {
namespace {

std::string serves_all(const attn::KernelQuery& /*query*/) { return {}; }

/// The rows of the back end cuda, where it is built, each made to serve without its GPU.
std::vector<attn::Kernel> device_rows() {
  std::vector<attn::Kernel> rows;
  for (const attn::Kernel* kernel : attn::kernels("cuda")) {
    attn::Kernel row = *kernel;
    row.refuses = serves_all;
    rows.push_back(row);
  }
  return rows;
}

std::int64_t by_counts(const attn::AttendGeometry& g, bool backward, int /*threads*/) {
  const auto rows = static_cast<std::int64_t>(g.row_tiles.size());
  const auto keys = static_cast<std::int64_t>(g.key_tiles.size());
  return 1000 * rows + 7 * keys + (backward ? g.heads * rows : 0);
}
std::int64_t nothing(const attn::AttendGeometry& /*g*/, bool /*backward*/) { return 0; }
void forward(const attn::ForwardParams& /*params*/, const attn::LaunchContext& /*context*/) {}
void backward(const attn::BackwardParams& /*params*/, const attn::LaunchContext& /*context*/) {}
attn::TileLimits tiles_by_pass(const attn::KernelQuery& query) {
  return query.backward ? attn::TileLimits{16, 24} : attn::TileLimits{24, 16};
}

/// One whose workspace shows every query tile and key tile, of another grid in each pass.
attn::Kernel counting_row() {
  attn::Kernel row;
  row.name = "counting";
  row.backend = "cuda";
  row.tiles = tiles_by_pass;
  row.joined_tiles = true;
  row.refuses = serves_all;
  row.workspace_bytes = by_counts;
  row.materialized_bytes = nothing;
  row.forward = forward;
  row.backward = backward;
  return row;
}

struct Choice {
  GatherLaunch launch = GatherLaunch::slices;
  bool deterministic = false;
  std::int64_t tile = 0;
  int slices = 1;  ///< of ulysses
  BackwardMoves moves = BackwardMoves::automatic;
  engine::InPlace in_place{};
};

/// What an attention needs when it is bound.
std::int64_t needed(const Mesh& mesh, const SessionOptions& options, const attn::Kernel& kernel,
                    Pass pass, const Choice& choice) {
  const Problem problem = resolved(options.max_problem);
  const engine::Decision decision =
      engine::decide(problem, options.layout, options.algorithm, mesh, options.backward);
  const Plan plan = make_plan(
      engine::plan_request(problem, options.layout, decision, pass, kernel,
                           {options.outer, choice.tile, choice.tile, choice.launch, choice.slices,
                            choice.moves, choice.deterministic, choice.in_place}));
  const RankPlan rank = plan.rank(mesh.rank());
  const attn::Launches launches(plan, rank, kernel, choice.deterministic);
  return rank.arena_bytes + attn::workspace_bytes(launches, options.threads);
}

std::vector<Problem> problems() {
  Problem causal;
  causal.seq = 1021;
  causal.heads = 6;
  causal.heads_kv = 3;
  causal.head_dim = 64;
  causal.dtype = DType::bf16;
  Problem documents = causal;
  documents.mask = Mask::documents({300, 5, 716});
  Problem lists = causal;  // rows that see many intervals: key tiles are cut to them
  lists.seq = 203;
  std::vector<std::int64_t> segments;
  for (std::int64_t i = 0; i < 203; ++i) segments.push_back(i / 9 % 3);
  lists.mask = Mask::segments(segments);
  Problem full = causal;
  full.seq = 517;
  full.mask = Mask::full();
  full.heads_kv = 6;        // a ring moves queries
  Problem decode = causal;  // deterministic launches want more than others
  decode.seq = 5;
  decode.seq_kv = 9001;
  return {causal, documents, lists, full, decode};
}

/// A session that was told nothing holds keys as well.
std::vector<BackwardMoves> moves_of(const SessionOptions& options, Pass pass) {
  const bool ring = options.algorithm == Algorithm::ring && pass == Pass::backward;
  if (!ring || options.backward_moves != BackwardMoves::automatic) return {options.backward_moves};
  return {BackwardMoves::automatic, BackwardMoves::keys};
}

/// Every attention of one session on this rank.
void check_session(const Mesh& mesh, const SessionOptions& options, const attn::Kernel& kernel,
                   engine::InPlace in_place = {}) {
  const std::int64_t arena = engine::largest_arena(mesh, options, "cuda", in_place);
  std::int64_t most = 0;
  for (const Pass pass : {Pass::forward, Pass::backward}) {
    for (const GatherLaunch launch :
         {GatherLaunch::slices, GatherLaunch::on_arrival, GatherLaunch::in_position}) {
      for (const bool deterministic : {false, true}) {
        for (const std::int64_t tile : {std::int64_t{0}, options.tile_q}) {
          for (const int slices : {0, 1, 2, 3, 100}) {
            for (const BackwardMoves moves : moves_of(options, pass)) {
              const std::int64_t bytes =
                  needed(mesh, options, kernel, pass,
                         {launch, deterministic, tile, slices, moves, in_place});
              most = std::max(most, bytes);
              ASSERT_LE(bytes, arena)
                  << fmt::format("rank {} {} launch {} deterministic {} tile {} slices {} moves {}",
                                 mesh.rank(), name_of(pass), static_cast<int>(launch),
                                 deterministic, tile, slices, name_of(moves));
            }
          }
        }
      }
    }
  }
  // Not more than rows and keys that no tile holds can make it.
  EXPECT_LE(arena, most + most / 20 + 65536);
}

void check_kernel(const attn::Kernel& row) {
  const std::string name = fmt::format("{} anywhere", row.name);
  attn::Kernel renamed = row;
  renamed.name = name;
  const attn::RegisteredKernel registered(renamed);
  for (const Problem& problem : problems()) {
    for (const Algorithm algorithm : {Algorithm::ring, Algorithm::gather, Algorithm::ulysses}) {
      for (const Layout& layout : {Layout::contiguous(), Layout::zigzag(), Layout::striped()}) {
        for (const std::int64_t tile : {0, 16}) {
          SCOPED_TRACE(fmt::format("{} {} {} {} tile {}", name, name_of(algorithm), layout.name(),
                                   problem.mask.name(), tile));
          SessionOptions options;
          options.max_problem = problem;
          options.algorithm = algorithm;
          options.layout = layout;
          options.kernel = name;
          options.tile_q = options.tile_k = tile;
          for (const BackwardMoves moves : {BackwardMoves::automatic, BackwardMoves::queries}) {
            // Elsewhere it makes no difference; one layout is enough, for time.
            const bool told =
                algorithm == Algorithm::ring && layout.name() == "zigzag" && tile == 0;
            if (moves == BackwardMoves::queries && !told) continue;
            options.backward_moves = moves;
            run_ranks({.ring = 3}, [&](Mesh& mesh) {
              ASSERT_NO_FATAL_FAILURE(check_session(mesh, options, registered.kernel()));
            });
          }
        }
      }
    }
  }
}

/// Of ulysses, where some is exchanged in place: as exact, and smaller by what is staged no more.
TEST(SessionArena, HoldsWhatIsNotInPlaceAlone) {
  const attn::RegisteredKernel registered(counting_row());
  for (const Problem& problem : problems()) {
    SessionOptions options;
    options.max_problem = problem;
    options.algorithm = Algorithm::ulysses;
    options.kernel = "counting";
    run_ranks({.ring = 3}, [&](Mesh& mesh) {
      const std::int64_t staged = engine::largest_arena(mesh, options, "cuda");
      for (const engine::InPlace way :
           {engine::InPlace{true, true}, {true, false}, {false, true}}) {
        ASSERT_NO_FATAL_FAILURE(check_session(mesh, options, registered.kernel(), way));
        EXPECT_LT(engine::largest_arena(mesh, options, "cuda", way), staged);
      }
    });
  }
}

TEST(SessionArena, HoldsEveryAttentionOfKernelsThatCountTiles) { check_kernel(counting_row()); }

TEST(SessionArena, HoldsEveryAttentionOfTheKernelsForGpus) {
  const std::vector<attn::Kernel> rows = device_rows();
  if (rows.empty()) GTEST_SKIP() << "built without CUDA";
  for (const attn::Kernel& row : rows) check_kernel(row);
}

}  // namespace
}  // namespace annulus::testing
