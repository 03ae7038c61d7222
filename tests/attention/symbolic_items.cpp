// What each kind of item does to symbols.

#include "tests/attention/symbolic.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace annulus::test {
namespace {

template <typename Fn>
void for_each(std::int64_t batch, const Block& block, Fn fn) {
  for (std::int64_t b = 0; b < batch; ++b) {
    for (std::int64_t t = 0; t < block.tokens; ++t) {
      for (std::int64_t h = 0; h < block.heads; ++h) {
        for (std::int64_t d = 0; d < block.dims; ++d) {
          fn(b, block.token + t * block.token_step, block.head + h, block.dim + d);
        }
      }
    }
  }
}

Block without_dims(Block block, std::int32_t dims) {
  block.dims = dims;
  return block;
}

}  // namespace

Element& SymbolicRun::at(int rank, std::int32_t slot, std::int64_t batch, std::int64_t token,
                         std::int64_t head, std::int64_t dim) {
  const PlanSlot& s = rank_plan(rank).slots.at(static_cast<std::size_t>(slot));
  if (token < 0 || token >= s.tokens || head < 0 || head >= s.heads || dim < 0 || dim >= s.dim) {
    throw std::out_of_range(fmt::format("rank {} slot {}: token {} head {} dim {} of {}x{}x{}",
                                        rank, s.name, token, head, dim, s.tokens, s.heads, s.dim));
  }
  return slots_[static_cast<std::size_t>(rank)][static_cast<std::size_t>(
      slot)][static_cast<std::size_t>(((batch * s.tokens + token) * s.heads + head) * s.dim + dim)];
}

Element& SymbolicRun::touch(AccessMode mode, int rank, std::int32_t slot, std::int64_t batch,
                            std::int64_t token, std::int64_t head, std::int64_t dim) {
  const RankPlan& r = rank_plan(rank);
  const Item& item = r.items[static_cast<std::size_t>(running_)];
  const auto declared = [&](const Access& access) {
    const Block& b = access.block;
    return (access.mode == mode || access.mode == AccessMode::update) && b.slot == slot &&
           token >= b.token && (token - b.token) % b.token_step == 0 &&
           (token - b.token) / b.token_step < b.tokens && head >= b.head &&
           head < b.head + b.heads && dim >= b.dim && dim < b.dim + b.dims;
  };
  const auto first = r.accesses.begin() + item.accesses.begin;
  if (!std::any_of(first, first + item.accesses.count, declared)) {
    fault(rank, fmt::format("{} touches slot {} token {} head {} dim {} without saying so",
                            describe(r, running_), r.slots[static_cast<std::size_t>(slot)].name,
                            token, head, dim));
  }
  return at(rank, slot, batch, token, head, dim);
}

std::vector<Element> SymbolicRun::load(int rank, const Block& block) {
  std::vector<Element> values;
  for_each(problem().batch, block, [&](auto b, auto t, auto h, auto d) {
    values.push_back(touch(AccessMode::read, rank, block.slot, b, t, h, d));
    if (values.back().id == 0) {
      fault(rank, fmt::format("slot {} is read before it is written",
                              rank_plan(rank).slots[static_cast<std::size_t>(block.slot)].name));
    }
  });
  return values;
}

void SymbolicRun::store(int rank, const Block& block, const std::vector<Element>& values) {
  std::size_t next = 0;
  for_each(problem().batch, block, [&](auto b, auto t, auto h, auto d) {
    if (next < values.size()) touch(AccessMode::write, rank, block.slot, b, t, h, d) = values[next];
    ++next;
  });
  if (next != values.size()) {
    fault(rank, fmt::format("{} elements go into a block of {}", values.size(), next));
  }
}

void SymbolicRun::prepare(int rank, const Prepare& p) {
  const auto dtype = [&](const Block& b) {
    return rank_plan(rank).slots[static_cast<std::size_t>(b.slot)].dtype;
  };
  if (p.kind == PrepareKind::row_sums) {
    row_sums(rank, p);
    return;
  }
  if (p.kind == PrepareKind::zero) {
    for_each(problem().batch, p.target, [&](auto b, auto t, auto h, auto d) {
      touch(AccessMode::write, rank, p.target.slot, b, t, h, d) = {kZeroId, 0, -1, 0};
    });
    return;
  }
  if (p.source.tokens != p.target.tokens || p.source.heads != p.target.heads ||
      p.source.dims != p.target.dims) {
    fault(rank, "a copy changes the shape");
  }
  std::vector<Element> values = load(rank, p.source);
  if (p.kind == PrepareKind::copy) {
    if (dtype(p.source) != dtype(p.target)) fault(rank, "a copy changes the dtype");
  } else {
    if (dtype(p.source) != DType::f32 || dtype(p.target) != problem().dtype) {
      fault(rank, "convert takes fp32 to the input dtype");
    }
    for (Element& e : values) e.rounded += problem().dtype == DType::f32 ? 0 : 1;
  }
  store(rank, p.target, values);
}

void SymbolicRun::row_sums(int rank, const Prepare& p) {
  const Block first = without_dims(p.source, 1);
  for_each(problem().batch, first, [&](auto b, auto t, auto h, auto d) {
    const std::int64_t position = touch(AccessMode::read, rank, p.source.slot, b, t, h, d).position;
    for (std::int32_t i = 0; i < p.source.dims; ++i) {
      const Element& dout = touch(AccessMode::read, rank, p.source.slot, b, t, h, p.source.dim + i);
      const Element& out =
          touch(AccessMode::read, rank, p.source2.slot, b, t, h, p.source2.dim + i);
      if (dout.id != id_of(static_cast<int>(Role::dout), b, position, h, i) ||
          out.id != id_of(static_cast<int>(Role::out), b, position, h, i)) {
        fault(rank, "row sums of other rows than dout's and out's");
      }
    }
    touch(AccessMode::write, rank, p.target.slot, b, p.target.token + t - p.source.token,
          p.target.head + h - p.source.head,
          p.target.dim) = {id_of(kDelta, b, position, h, 0), 0, position, 0};
  });
  if (p.source.dims != *problem().head_dim_v || p.source.tokens != p.target.tokens ||
      p.source.heads != p.target.heads) {
    fault(rank, "row sums change the shape");
  }
}

void SymbolicRun::add_to(Element& target, const Element& source, int rank, const char* what) {
  if (target.id == 0 || source.id == 0) {
    fault(rank, fmt::format("{} reads what was never written", what));
  } else if (target.id == kZeroId) {
    target = source;
  } else if (source.id != kZeroId && source.id != target.id) {
    fault(rank, fmt::format("{} adds different elements", what));
  } else {
    target.sum += source.sum;
  }
  if (target.rounded != 0 || source.rounded != 0) fault(rank, "a rounded value is added to");
}

void SymbolicRun::reduce(int rank, const Reduce& r) {
  const std::vector<Element> values = load(rank, r.source);
  if (r.assign) {
    store(rank, r.target, values);
    return;
  }
  std::size_t next = 0;
  for_each(problem().batch, r.target, [&](auto b, auto t, auto h, auto d) {
    if (next < values.size()) {
      add_to(touch(AccessMode::update, rank, r.target.slot, b, t, h, d), values[next], rank,
             "reduce");
    }
    ++next;
  });
  if (next != values.size()) fault(rank, "reduce changes the shape");
}

void SymbolicRun::merge(int rank, const Merge& m) {
  if (plan_.request().options.resume) fault(rank, "a merge though kernels can resume");
  reduce(rank, {m.other, m.state, false});
  reduce(rank, {m.other_lse, m.lse, false});
  if (m.out.slot < 0) return;
  std::vector<Element> values = load(rank, m.state);
  for (Element& e : values) e.rounded += problem().dtype == DType::f32 ? 0 : 1;
  store(rank, m.out, values);
}

void SymbolicRun::check_operand(const Node& node, const SlotView& view, int what, std::int64_t dims,
                                std::int64_t token, std::int64_t head, std::int64_t position) {
  for (std::int64_t b = 0; b < problem().batch; ++b) {
    for (std::int64_t d = 0; d < dims; ++d) {
      const Element& e = touch(AccessMode::read, node.rank, view.slot, b, token,
                               head - view.head_origin, view.dim + d);
      if (e.id == id_of(what, b, position, head, d)) continue;
      fault(node.rank,
            fmt::format("{}: operand {} token {} is not position {} head {} dim {}",
                        describe(rank_plan(node.rank), node.item), what, token, position, head, d));
      return;
    }
  }
}

void SymbolicRun::attend(const Node& node, const Attend& a) {
  const RankPlan& r = rank_plan(node.rank);
  const auto& rows = row_positions_[static_cast<std::size_t>(node.rank)];
  std::vector<std::int64_t> queries;
  std::int64_t pairs = 0;
  for (std::int32_t q = 0; q < a.queries.count; ++q) {
    const Segment& s = r.segments[static_cast<std::size_t>(a.queries.begin + q)];
    for (std::int64_t i = 0; i < s.positions.count; ++i) {
      const std::int64_t query = rows.at(static_cast<std::size_t>(s.first_row + i));
      queries.push_back(query);
      for (std::int64_t h = a.head; h < a.head + a.heads; ++h) {
        attend_row(node, a, s.token + i, query, h);
      }
      for (std::int32_t k = 0; k < a.keys.count; ++k) {
        const TokenRange& keys = r.segments[static_cast<std::size_t>(a.keys.begin + k)].positions;
        for (std::int64_t j = 0; j < keys.count; ++j) {
          pairs += mask_.sees(query, keys.position(j)) ? 1 : 0;
        }
      }
    }
  }
  if (pairs != a.pairs) {
    fault(node.rank,
          fmt::format("{}: says {} pairs, has {}", describe(r, node.item), a.pairs, pairs));
  }
  for (std::int32_t k = 0; k < a.keys.count; ++k) {
    const Segment& s = r.segments[static_cast<std::size_t>(a.keys.begin + k)];
    for (std::int64_t j = 0; j < s.positions.count; ++j) {
      for (std::int64_t h = a.head / group(); h <= (a.head + a.heads - 1) / group(); ++h) {
        attend_key(node, a, queries, s.token + j, s.positions.position(j), h);
      }
    }
  }
}

void SymbolicRun::attend_row(const Node& node, const Attend& a, std::int64_t token,
                             std::int64_t query, std::int64_t head) {
  const std::int64_t dim_v = *problem().head_dim_v;
  check_operand(node, a.q, static_cast<int>(Role::q), problem().head_dim, token, head, query);
  if (a.pass == Pass::backward) {
    check_operand(node, a.dout, static_cast<int>(Role::dout), dim_v, token, head, query);
    check_operand(node, a.lse, static_cast<int>(Role::lse), 1, token, head, query);
    check_operand(node, a.delta, kDelta, 1, token, head, query);
  }
  if (node.call == 0) {
    const RankPlan& r = rank_plan(node.rank);
    for (std::int32_t k = 0; k < a.keys.count; ++k) {
      const TokenRange& keys = r.segments[static_cast<std::size_t>(a.keys.begin + k)].positions;
      for (std::int64_t j = 0; j < keys.count; ++j) {
        const std::int64_t key = keys.position(j);
        if (!mask_.sees(query, key)) continue;
        ++counts_[static_cast<std::size_t>((head * mask_.seq() + query) * mask_.seq_kv() + key)];
      }
    }
  }
  finish_row(node, a, token, query, head);
}

/// The row's results: a state or an output, or its gradient.
void SymbolicRun::finish_row(const Node& node, const Attend& a, std::int64_t token,
                             std::int64_t query, std::int64_t head) {
  const RankPlan& r = rank_plan(node.rank);
  const auto sum_of = [&](Role role, std::int64_t batch) {
    std::uint64_t sum = 0;
    for (std::int32_t k = 0; k < a.keys.count; ++k) {
      const TokenRange& keys = r.segments[static_cast<std::size_t>(a.keys.begin + k)].positions;
      for (std::int64_t j = 0; j < keys.count; ++j) {
        const std::int64_t key = keys.position(j);
        if (mask_.sees(query, key)) sum += part_of(role, batch, head, query, key);
      }
    }
    return sum;
  };
  const auto update = [&](Role role, const SlotView& old, const SlotView& target, std::int64_t dims,
                          bool adds, bool rounds) {
    for (std::int64_t b = 0; b < problem().batch; ++b) {
      const std::uint64_t sum = sum_of(role, b);
      for (std::int64_t d = 0; d < dims; ++d) {
        Element made{id_of(static_cast<int>(role), b, query, head, d), sum, query, 0};
        if (adds) {
          add_to(made,
                 touch(AccessMode::read, node.rank, old.slot, b, token, head - old.head_origin,
                       old.dim + d),
                 node.rank, "attend");
        }
        made.rounded = rounds && problem().dtype != DType::f32 ? 1 : 0;
        touch(AccessMode::write, node.rank, target.slot, b, token, head - target.head_origin,
              target.dim + d) = made;
      }
    }
  };
  if (a.pass == Pass::backward) {
    update(Role::dq, a.dq, a.dq, problem().head_dim, !a.dq_assign, false);
    return;
  }
  if (a.resume && !plan_.request().options.resume)
    fault(node.rank, "resumes, which kernels cannot");
  const SlotView& target = a.finish ? a.out : a.state;
  update(Role::out, a.state, target, *problem().head_dim_v, a.resume, a.finish);
  update(Role::lse, a.lse, a.lse, 1, a.resume, false);
}

void SymbolicRun::attend_key(const Node& node, const Attend& a,
                             const std::vector<std::int64_t>& queries, std::int64_t token,
                             std::int64_t key, std::int64_t kv_head) {
  check_operand(node, a.k, static_cast<int>(Role::k), problem().head_dim, token, kv_head, key);
  check_operand(node, a.v, static_cast<int>(Role::v), *problem().head_dim_v, token, kv_head, key);
  if (a.pass == Pass::forward) return;
  const std::int64_t first = std::max<std::int64_t>(a.head, kv_head * group());
  const std::int64_t end = std::min<std::int64_t>(a.head + a.heads, (kv_head + 1) * group());
  const auto dtype_of = [&](const SlotView& view) {
    return rank_plan(node.rank).slots[static_cast<std::size_t>(view.slot)].dtype;
  };
  const auto update = [&](Role role, const SlotView& target, std::int64_t dims) {
    for (std::int64_t b = 0; b < problem().batch; ++b) {
      std::uint64_t sum = 0;
      for (const std::int64_t query : queries) {
        if (!mask_.sees(query, key)) continue;
        for (std::int64_t h = first; h < end; ++h) sum += part_of(role, b, h, query, key);
      }
      for (std::int64_t d = 0; d < dims; ++d) {
        Element& e = touch(a.dkv_assign ? AccessMode::write : AccessMode::update, node.rank,
                           target.slot, b, token, kv_head - target.head_origin, target.dim + d);
        const int rounded = dtype_of(target) == DType::f32 ? 0 : 1;
        const Element part{id_of(static_cast<int>(role), b, key, kv_head, d), sum, key, rounded};
        if (rounded != 0 && (!plan_.request().options.rounded_dkv || !a.dkv_assign)) {
          fault(node.rank, "rounds dk or dv, which its kernel cannot");
        }
        if (a.dkv_assign) {
          e = part;
        } else {
          add_to(e, part, node.rank, "attend");
        }
      }
    }
  };
  update(Role::dk, a.dk, problem().head_dim);
  update(Role::dv, a.dv, *problem().head_dim_v);
}

/// What gather pulls is seen by some row of the receiver, or with keys_on_grid stands before such
/// a key in its tile.
void SymbolicRun::check_needed(const Node& node, const Transfer& t,
                               const std::vector<Element>& values) {
  const RankPlan& r = rank_plan(node.rank);
  if (r.slots[static_cast<std::size_t>(t.block.slot)].name != "kv slice") return;
  const auto& rows = row_positions_[static_cast<std::size_t>(node.rank)];
  std::set<std::int64_t> positions;
  for (const Element& e : values) positions.insert(e.position);
  const PlanOptions& options = plan_.request().options;
  const auto is_seen = [&](std::int64_t key) {
    return std::any_of(rows.begin(), rows.end(),
                       [&](std::int64_t query) { return mask_.sees(query, key); });
  };
  for (const std::int64_t key : positions) {
    const std::int64_t of_tile = (key / options.tile_k + 1) * options.tile_k;
    const std::int64_t end = options.keys_on_grid ? std::min(of_tile, *problem().seq_kv) : key + 1;
    bool wanted = false;
    for (std::int64_t k = key; k < end && !wanted; ++k) wanted = is_seen(k);
    if (!wanted) {
      fault(node.rank, fmt::format("{}: no row sees key {}", describe(r, node.item), key));
    }
  }
}

}  // namespace annulus::test
