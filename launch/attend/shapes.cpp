#include "launch/attend/shapes.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>

namespace annulus::launch {
namespace {

using Dims = std::array<std::int64_t, 4>;
using Keys = std::array<const char*, 4>;

constexpr Keys kQueryKeys{"batch", "seq", "heads", "head_dim"};
constexpr Keys kKeyKeys{"batch", "seq_kv", "heads_kv", "head_dim"};
constexpr Keys kValueKeys{"batch", "seq_kv", "heads_kv", "head_dim_v"};
constexpr Keys kDoutKeys{"batch", "seq", "heads", "head_dim_v"};

/// The dims of [batch, seq, heads, dim] or [seq, heads, dim]; nothing for a flat array.
std::optional<Dims> dims_of(const StoredTensor& tensor) {
  const std::vector<std::int64_t>& s = tensor.shape;
  if (s.size() == 4) return Dims{s[0], s[1], s[2], s[3]};
  if (s.size() == 3) return Dims{1, s[0], s[1], s[2]};
  return std::nullopt;
}

std::int64_t product(const Dims& dims) { return dims[0] * dims[1] * dims[2] * dims[3]; }

/// Which single dimension, changed, gives `elements`; the likelier first. -1: none.
int changed_dimension(const Dims& wanted, std::int64_t elements, std::int64_t heads) {
  for (const int d : {2, 1, 3, 0}) {
    const auto i = static_cast<std::size_t>(d);
    if (wanted[i] == 0) continue;
    const std::int64_t others = product(wanted) / wanted[i];
    if (others == 0 || elements == 0 || elements % others != 0) continue;
    // A number of heads that could not be is no advice.
    if (d == 2 && heads % (elements / others) != 0) continue;
    return d;
  }
  return -1;
}

class Checker {
 public:
  Checker(const Settings& settings, const AttendShape& shape) : settings_(settings), s_(shape) {}

  void check(const char* name, const StoredTensor& tensor, const Keys& keys,
             const Dims& wanted) const {
    const std::optional<Dims> dims = dims_of(tensor);
    if (dims ? *dims == wanted : tensor.elements() == product(wanted)) return;
    Dims there = wanted;
    std::vector<std::string> advice;
    if (dims) {
      there = *dims;
      for (std::size_t d = 0; d < 4; ++d) {
        if (there[d] != wanted[d]) advice.push_back(advice_on(keys[d], there[d]));
      }
    } else if (const int d = changed_dimension(wanted, tensor.elements(), s_.heads); d >= 0) {
      const auto i = static_cast<std::size_t>(d);
      there[i] = tensor.elements() / (product(wanted) / wanted[i]);
      advice.push_back(fmt::format("set {}={}", keys[i], there[i]));
    } else {
      advice.push_back(fmt::format("give {} as they are", fmt::join(keys, ", ")));
    }
    const bool known = product(there) == tensor.elements();
    throw UsageError(fmt::format("{}: {} has {}{} elements, [{}] needs {}: {}",
                                 settings_.where(name), name, tensor.elements(),
                                 known ? fmt::format(" = {}", fmt::join(there, "·")) : "",
                                 fmt::join(wanted, ","), product(wanted), fmt::join(advice, ", ")));
  }

 private:
  /// A key that was given can be corrected; what two files disagree on cannot.
  std::string advice_on(const char* key, std::int64_t there) const {
    if (settings_.given(key)) return fmt::format("set {}={}", key, there);
    return fmt::format("{} {} is not that of the other tensors", key, there);
  }

  const Settings& settings_;
  const AttendShape& s_;
};

/// The key if it was given, else what the file says, else the key's own default.
std::int64_t choose(const Settings& settings, const char* key, const std::optional<Dims>& dims,
                    std::size_t d, std::int64_t otherwise) {
  if (settings.given(key)) return settings.integer(key);
  return dims ? (*dims)[d] : otherwise;
}

void require_dtype(const Settings& settings, const char* name, const StoredTensor& tensor,
                   DType dtype) {
  if (tensor.dtype == dtype) return;
  settings.refuse(name, fmt::format("is {}; allowed: {}, the dtype of q", name_of(tensor.dtype),
                                    name_of(dtype)));
}

}  // namespace

AttendShape attend_shape(const Settings& settings, const AttendTensors& t) {
  AttendShape s{.dtype = t.q.dtype};
  if (settings.given("dtype") && settings.text("dtype") != name_of(s.dtype)) {
    settings.refuse("dtype", fmt::format("is not the dtype of q; allowed: {}", name_of(s.dtype)));
  }
  require_dtype(settings, "k", t.k, s.dtype);
  require_dtype(settings, "v", t.v, s.dtype);
  if (t.dout) require_dtype(settings, "dout", *t.dout, s.dtype);
  const auto q = dims_of(t.q);
  const auto k = dims_of(t.k);
  const auto v = dims_of(t.v);
  s.batch = choose(settings, "batch", q, 0, settings.integer("batch"));
  s.seq = q && !settings.given("seq") ? (*q)[1] : settings.integer("seq");
  s.heads = choose(settings, "heads", q, 2, settings.integer("heads"));
  s.head_dim = choose(settings, "head_dim", q, 3, settings.integer("head_dim"));
  s.seq_kv = choose(settings, "seq_kv", k, 1, s.seq);
  s.heads_kv = choose(settings, "heads_kv", k, 2, s.heads);
  s.head_dim_v = choose(settings, "head_dim_v", v, 3, s.head_dim);
  const Checker checker(settings, s);
  checker.check("q", t.q, kQueryKeys, {s.batch, s.seq, s.heads, s.head_dim});
  checker.check("k", t.k, kKeyKeys, {s.batch, s.seq_kv, s.heads_kv, s.head_dim});
  checker.check("v", t.v, kValueKeys, {s.batch, s.seq_kv, s.heads_kv, s.head_dim_v});
  if (t.dout) {
    checker.check("dout", *t.dout, kDoutKeys, {s.batch, s.seq, s.heads, s.head_dim_v});
  }
  return s;
}

Settings with_shape(const Settings& settings, const AttendShape& s) {
  Settings filled = settings;
  const auto set = [&](const char* key, const char* tensor, std::string text) {
    if (filled.given(key)) return;
    filled.set(key, {.text = std::move(text),
                     .origin = Origin::command_line,
                     .where = fmt::format("{}: its {}", settings.where(tensor), key),
                     .folder = {}});
  };
  set("batch", "q", std::to_string(s.batch));
  set("seq", "q", std::to_string(s.seq));
  set("seq_kv", "k", std::to_string(s.seq_kv));
  set("heads", "q", std::to_string(s.heads));
  set("heads_kv", "k", std::to_string(s.heads_kv));
  set("head_dim", "q", std::to_string(s.head_dim));
  set("head_dim_v", "v", std::to_string(s.head_dim_v));
  set("dtype", "q", std::string(name_of(s.dtype)));
  return filled;
}

}  // namespace annulus::launch
