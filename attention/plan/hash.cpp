#include "attention/plan/hash.h"

#include "attention/plan/context.h"

#include <bit>
#include <type_traits>

namespace annulus::attn {
namespace {

/// To be raised when plans of the same request change.
constexpr std::int64_t kPlanFormat = 4;

class Fnv {
 public:
  void add(std::int64_t value) {
    for (int shift = 0; shift < 64; shift += 8) {
      state_ = (state_ ^ ((static_cast<std::uint64_t>(value) >> shift) & 0xffU)) * 1099511628211U;
    }
  }
  void add(double value) { add(std::bit_cast<std::int64_t>(value)); }
  template <typename E>
  requires std::is_enum_v<E>
  void add(E value) { add(static_cast<std::int64_t>(value)); }
  std::uint32_t folded() const {
    const auto value = static_cast<std::uint32_t>((state_ ^ (state_ >> 32U)) & 0x7fffffffU);
    return value == 0 ? 1 : value;
  }

 private:
  std::uint64_t state_ = 14695981039346656037U;
};

void add_shards(Fnv& fnv, const Sharding& sharding) {
  for (int r = 0; r < sharding.world(); ++r) {
    for (const Shard* shard : {&sharding.shard(r), &sharding.shard_kv(r)}) {
      fnv.add(static_cast<std::int64_t>(shard->size()));
      for (const TokenRange& range : *shard) {
        fnv.add(range.begin);
        fnv.add(range.count);
        fnv.add(range.stride);
      }
    }
  }
}

void add_bands(Fnv& fnv, const std::vector<Band>& bands) {
  for (const Band& band : bands) {
    fnv.add(band.begin);
    fnv.add(band.end);
    fnv.add(std::int64_t{band.count});
    for (int i = 0; i < band.count; ++i) {
      const AffineInterval& x = band.intervals[static_cast<std::size_t>(i)];
      for (const std::int64_t v : {x.lo.base, x.lo.step, x.hi.base, x.hi.step}) fnv.add(v);
    }
    if (band.fixed) fnv.add(static_cast<std::int64_t>(band.fixed->size()));
    for (const KeyInterval& k : band.fixed_keys()) {
      fnv.add(k.begin);
      fnv.add(k.end);
    }
  }
}

}  // namespace

std::uint32_t hash_of(const Plan::Impl& plan) {
  const PlanRequest& r = plan.request;
  const Problem& p = plan.problem();
  Fnv fnv;
  fnv.add(kPlanFormat);
  for (const std::int64_t v : {p.batch,
                               p.seq,
                               *p.seq_kv,
                               p.heads,
                               *p.heads_kv,
                               p.head_dim,
                               *p.head_dim_v,
                               std::int64_t{r.mesh.ring},
                               std::int64_t{r.mesh.ulysses},
                               r.options.tile_q,
                               r.options.tile_k,
                               std::int64_t{r.options.gather_slices},
                               std::int64_t{r.options.ulysses_slices},
                               std::int64_t{r.options.resume},
                               std::int64_t{r.options.stage_caller},
                               std::int64_t{r.options.give_in_place},
                               std::int64_t{r.options.land_in_place},
                               std::int64_t{r.options.rounded_dkv},
                               std::int64_t{plan.moves_queries},
                               std::int64_t{r.options.keys_on_grid}}) {
    fnv.add(v);
  }
  fnv.add(r.options.gather_launch);
  fnv.add(p.dtype);
  fnv.add(p.softcap);
  fnv.add(*p.softmax_scale);
  fnv.add(r.algorithm);
  fnv.add(r.options.outer);
  fnv.add(r.pass);
  for (const std::int32_t end : plan.slice_ends) fnv.add(std::int64_t{end});
  add_bands(fnv, plan.bands);
  add_shards(fnv, plan.sharding);
  return fnv.folded();
}

}  // namespace annulus::attn
