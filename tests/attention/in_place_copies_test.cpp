// What copies of a plan that exchanges in place read and write, played on the host with the regions
// and planes that GPUs get: every element where it belongs, and no byte beside it.

#include "attention/execute/cuda/device_transfers.h"
#include "comm/device/planes.h"

#include <annulus/plan.h>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

namespace annulus {
namespace {

constexpr std::uint32_t kPoison = 0x5a5a5a5a;

/// A number of an element of a rank's tensor; never kPoison.
std::uint32_t code(Role role, int rank, std::int64_t batch, std::int64_t token, std::int32_t head,
                   std::int32_t dim) {
  std::uint32_t h = 17;
  for (const std::int64_t v : {std::int64_t{static_cast<int>(role)}, std::int64_t{rank}, batch,
                               token, std::int64_t{head}, std::int64_t{dim}}) {
    h = h * 31 + static_cast<std::uint32_t>(v);
  }
  return h & 0x0fffffffU;
}

/// How the caller's tensors lie: elements between heads and between tokens.
struct Gaps {
  std::int64_t head = 0;
  std::int64_t token = 0;
};

/// One rank's plan, arena and tensors, all poisoned.
class RankMemory {
 public:
  RankMemory(const Plan& plan, int rank, const Gaps& gaps)
      : plan_(plan.rank(rank)),
        arena_(static_cast<std::size_t>(plan_.arena_bytes / 4), kPoison),
        memory_(plan_, plan.request().problem.batch, arena()) {
    for (const PlanSlot& s : plan_.slots) {
      if (s.space == Space::caller) place(s, plan.request().problem.batch, gaps);
    }
  }

  const RankPlan& plan() const { return plan_; }
  const attn::Memory& memory() const { return memory_; }
  std::byte* arena() { return reinterpret_cast<std::byte*>(arena_.data()); }
  const PlanSlot& slot(const Block& b) const {
    return plan_.slots[static_cast<std::size_t>(b.slot)];
  }

  /// fn(number, batch, token, head, dim), of the slot.
  template <typename Fn>
  void each(const Block& b, Fn fn) const {
    const attn::SlotMemory& m = memory_.slot(b.slot);
    auto* data = reinterpret_cast<std::uint32_t*>(m.data);
    for (std::int64_t n = 0; n < memory_.batch(); ++n) {
      for (std::int64_t t = b.token; t < b.token + b.tokens; ++t) {
        for (std::int32_t h = b.head; h < b.head + b.heads; ++h) {
          for (std::int32_t d = b.dim; d < b.dim + b.dims; ++d) {
            fn(data[n * m.batch_stride + t * m.token_stride + h * m.head_stride + d], n, t, h, d);
          }
        }
      }
    }
  }

  /// Numbers that are not poison.
  std::int64_t written() const {
    std::int64_t count = 0;
    for (const std::uint32_t v : arena_) count += v != kPoison ? 1 : 0;
    for (const auto& [role, tensor] : tensors_) {
      for (const std::uint32_t v : tensor) count += v != kPoison ? 1 : 0;
    }
    return count;
  }

 private:
  void place(const PlanSlot& s, std::int64_t batch, const Gaps& gaps) {
    TensorView view;
    view.dtype = s.dtype;
    if (s.role == Role::lse) {
      const std::int64_t row = s.tokens + gaps.token;
      view.shape = {batch, s.heads, s.tokens};
      view.strides = {s.heads * row, row, 1};
    } else {
      const std::int64_t head = s.dim + gaps.head;
      const std::int64_t token = s.heads * head + gaps.token;
      view.shape = {batch, s.tokens, s.heads, s.dim};
      view.strides = {s.tokens * token, token, head, 1};
    }
    auto& data = tensors_[s.role];
    data.assign(static_cast<std::size_t>(batch * view.strides[0]), kPoison);
    view.data = data.data();
    memory_.set_caller(plan_, s.role, view);
  }

  RankPlan plan_;
  std::vector<std::uint32_t> arena_;
  attn::Memory memory_;
  std::map<Role, std::vector<std::uint32_t>> tensors_;
};

void play(const comm::Plane& p) {
  for (std::int64_t row = 0; row < p.rows; ++row) {
    std::memcpy(p.to + row * p.to_pitch, p.from + row * p.from_pitch,
                static_cast<std::size_t>(p.run));
  }
}

PlanRequest request_of(const MeshShape& mesh, Pass pass, std::int64_t heads,
                       std::int64_t heads_kv) {
  PlanRequest r;
  r.problem = {.batch = 2, .seq = 29, .heads = heads, .heads_kv = heads_kv, .head_dim = 4};
  r.problem.head_dim_v = 2;
  r.problem.dtype = DType::f32;
  r.algorithm = mesh.ring > 1 ? Algorithm::hybrid : Algorithm::ulysses;
  r.mesh = mesh;
  r.pass = pass;
  r.options.stage_caller = true;
  r.options.give_in_place = true;
  r.options.land_in_place = true;
  return r;
}

class InPlaceCopies {
 public:
  InPlaceCopies(const PlanRequest& request, const Gaps& gaps) : plan_(make_plan(request)) {
    for (int r = 0; r < plan_.world(); ++r) {
      ranks_.push_back(std::make_unique<RankMemory>(plan_, r, gaps));
    }
  }

  /// Plays all transfers with an end in a caller's tensor; says what was wrong.
  void run() {
    for (int r = 0; r < plan_.world(); ++r) move_all(r);
  }

  std::size_t moved() const { return moved_; }
  std::size_t most_planes() const { return most_planes_; }

 private:
  void move_all(int r) {
    RankMemory& mine = *ranks_[static_cast<std::size_t>(r)];
    // Whatever the link would do, owners move.
    for (const bool pulls : {true, false}) {
      const auto all =
          attn::device_transfers(plan_, mine.plan(), mine.memory(), [&](const Transfer& t) {
            return attn::TransferReach{ranks_[static_cast<std::size_t>(t.peer)]->arena(), pulls};
          });
      for (std::size_t i = 0; i < all.size(); ++i) {
        const Transfer& t = mine.plan().transfers[i];
        if (mine.slot(t.block).space != Space::caller) continue;
        ASSERT_EQ(all[i].sends, !all[i].pulls);
        ASSERT_EQ(all[i].own, mine.memory().region(t.block));
        ASSERT_NO_FATAL_FAILURE(move(mine, t, all[i]));
      }
    }
  }

  void move(RankMemory& mine, const Transfer& t, const comm::DeviceTransfer& ends) {
    RankMemory& peer = *ranks_[static_cast<std::size_t>(t.peer)];
    const Transfer& other = other_end(mine.plan().rank, t, peer.plan());
    const Role role = mine.slot(t.block).role;
    RankMemory& from = t.sends ? mine : peer;
    RankMemory& to = t.sends ? peer : mine;
    const Block& source = t.sends ? t.block : other.block;
    const Block& target = t.sends ? other.block : t.block;
    const int owner = mine.plan().rank;
    // Numbers of the caller's element that the owner's end is.
    const auto number = [&](const Block& b, std::int64_t n, std::int64_t token, std::int32_t head,
                            std::int32_t dim) {
      return code(role, owner, n, token - b.token + t.block.token, head - b.head + t.block.head,
                  dim - b.dim);
    };
    from.each(source, [&](auto& v, auto... at) { v = number(source, at...); });
    const std::int64_t before = to.written();
    const auto planes =
        t.sends ? comm::planes(ends.own, ends.theirs) : comm::planes(ends.theirs, ends.own);
    for (const comm::Plane& p : planes) play(p);
    std::int64_t wrong = 0;
    to.each(target, [&](auto& v, auto... at) { wrong += v != number(target, at...) ? 1 : 0; });
    EXPECT_EQ(wrong, 0);
    to.each(target, [&](auto& v, auto...) { v = kPoison; });
    EXPECT_EQ(to.written(), before) << "beside its block";
    from.each(source, [&](auto& v, auto...) { v = kPoison; });
    ++moved_;
    most_planes_ = std::max(most_planes_, planes.size());
  }

  static const Transfer& other_end(int rank, const Transfer& t, const RankPlan& peer) {
    for (const Transfer& o : peer.transfers) {
      if (o.peer == rank && o.tag == t.tag && o.sends != t.sends) return o;
    }
    throw std::runtime_error("one end only");
  }

  Plan plan_;
  std::vector<std::unique_ptr<RankMemory>> ranks_;
  std::size_t moved_ = 0;
  std::size_t most_planes_ = 0;
};

TEST(InPlaceCopies, TouchTheirBlocksAlone) {
  for (const MeshShape& mesh : {MeshShape{.ring = 1, .ulysses = 2},
                                {.ring = 1, .ulysses = 3},
                                {.ring = 1, .ulysses = 4},
                                {.ring = 2, .ulysses = 2}}) {
    for (const auto& [heads, heads_kv] : {std::pair(8, 4), std::pair(7, 7), std::pair(5, 1)}) {
      for (const Pass pass : {Pass::forward, Pass::backward}) {
        for (const Gaps& gaps : {Gaps{}, Gaps{0, 3}, Gaps{5, 1}}) {
          for (const int slices : {1, 2}) {
            SCOPED_TRACE(fmt::format("mesh {}x{}, {}:{} heads, {}, gaps {} {}, {} slices",
                                     mesh.ring, mesh.ulysses, heads, heads_kv, name_of(pass),
                                     gaps.head, gaps.token, slices));
            PlanRequest r = request_of(mesh, pass, heads, heads_kv);
            r.options.ulysses_slices = slices;
            InPlaceCopies copies(r, gaps);
            copies.run();
            EXPECT_GT(copies.moved(), 0U);
          }
        }
      }
    }
  }
}

/// Heads of a caller's tensor that lie side by side are one copy for each batch element, lse too.
TEST(InPlaceCopies, AreAsFewAsBatchElements) {
  for (const Pass pass : {Pass::forward, Pass::backward}) {
    for (const int slices : {1, 2}) {
      PlanRequest r = request_of({.ring = 1, .ulysses = 4}, pass, 8, 4);
      r.options.ulysses_slices = slices;
      InPlaceCopies copies(r, {0, 3});
      copies.run();
      EXPECT_EQ(copies.most_planes(), 2U);
    }
  }
}

}  // namespace
}  // namespace annulus
