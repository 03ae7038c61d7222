#include "tests/emulate/tensor_core.h"

#include "runtime/base/dtype.h"
#include "tests/emulate/copies.h"
#include "tests/emulate/machine.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <deque>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace annulus::emulate {

namespace {

constexpr int kThreads = 128;
constexpr int kRows = 64;
constexpr int kDepth = 16;

struct Op {
  Product product;
  std::uint64_t due = 0;  ///< pass of the machine before which it is not done
  int arrived = 0;
  std::array<const std::uint32_t*, kThreads> a{};
  std::array<float*, kThreads> d{};
};

/// Accumulators that products were started for: what they will be, and how many are to come.
struct Accumulators {
  std::vector<float> values;
  int products = 0;
};

struct Thread {
  std::size_t started = 0;              ///< products
  std::vector<std::size_t> commits;     ///< products before each commit
  std::map<float*, Accumulators> open;  ///< not waited for yet
  bool fenced = false;
};

struct Group {
  std::deque<Op> ops;  ///< from product `done` on
  std::size_t done = 0;
  std::array<Thread, kThreads> threads;
};
std::map<int, Group> g_groups;

Group& group() { return g_groups[Machine::current().thread() / kThreads]; }
Thread& self(Group& g) {
  return g.threads[static_cast<std::size_t>(Machine::current().thread() % kThreads)];
}

float value_of(std::uint16_t bits, bool half) {
  return half ? f16_to_f32(bits) : bf16_to_f32(bits);
}

/// Elements (row, k) to (row, k + 7) that a descriptor names, or (row, k) to (row + 7, k) where
/// `across`: eight from a multiple of eight on are 16 bytes, which the swizzle moves as one.
using Eight = std::array<float, 8>;

Eight eight(std::uint64_t descriptor, bool across, int row, int k, bool half) {
  const std::uint32_t address = element_address(descriptor, across, row, k);
  Machine& machine = Machine::current();
  machine.require_fenced(address);
  std::array<std::uint16_t, 8> bits{};
  std::memcpy(bits.data(), machine.at(address, 16), 16);
  Eight values{};
  for (std::size_t i = 0; i < 8; ++i) values[i] = value_of(bits[i], half);
  return values;
}

/// Rows of an operand by kDepth, that is B with its columns for rows; element (row, k) goes to
/// to[row * row_step + k * k_step].
void read_shared(std::uint64_t descriptor, bool across, int rows, bool half, float* to,
                 std::size_t row_step, std::size_t k_step) {
  for (int row = 0; row < rows; row += across ? 8 : 1) {
    for (int k = 0; k < kDepth; k += across ? 1 : 8) {
      const Eight values = eight(descriptor, across, row, k, half);
      float* first =
          to + static_cast<std::size_t>(row) * row_step + static_cast<std::size_t>(k) * k_step;
      const std::size_t step = across ? row_step : k_step;
      for (std::size_t i = 0; i < 8; ++i) first[i * step] = values[i];
    }
  }
}

/// Thread, and index in its registers, of element (row, column) of a product; `packs` of A count
/// two elements each.
int thread_of(int row, int column) { return row / 16 * 32 + row % 8 * 4 + column % 8 / 2; }

using Left = std::array<float, kRows * kDepth>;

Left left_of(const Op& op) {
  Left a{};
  if (op.product.a == nullptr) {
    read_shared(op.product.a_rows, op.product.a_across, kRows, op.product.half, a.data(), kDepth,
                1);
    return a;
  }
  for (int row = 0; row < kRows; ++row) {
    for (int k = 0; k < kDepth; ++k) {
      const std::uint32_t* packs = op.a[static_cast<std::size_t>(thread_of(row, k))];
      const std::uint32_t pack = packs[2 * (k / 8) + row % 16 / 8];
      a[static_cast<std::size_t>(row * kDepth + k)] =
          value_of(static_cast<std::uint16_t>(k % 2 == 0 ? pack : pack >> 16), op.product.half);
    }
  }
  return a;
}

void compute(Group& g, const Op& op) {
  const Product& p = op.product;
  const auto columns = static_cast<std::size_t>(p.columns);
  const Left a = left_of(op);
  std::vector<float> b(kDepth * columns);
  read_shared(p.b, p.b_across, p.columns, p.half, b.data(), 1, columns);
  std::array<float*, kThreads> values{};
  for (std::size_t t = 0; t < kThreads; ++t) {
    Accumulators& to = g.threads[t].open.at(op.d[t]);
    if (to.values.size() < columns / 2)
      Machine::current().misuse("accumulators of another product");
    values[t] = to.values.data();
    --to.products;
  }
  std::vector<float> row_sum(columns);
  for (int row = 0; row < kRows; ++row) {
    std::fill(row_sum.begin(), row_sum.end(), 0.0F);
    for (std::size_t k = 0; k < kDepth; ++k) {
      const float left = a[static_cast<std::size_t>(row) * kDepth + k];
      for (std::size_t n = 0; n < columns; ++n) row_sum[n] += left * b[k * columns + n];
    }
    for (int n = 0; n < p.columns; ++n) {
      float& d = values[static_cast<std::size_t>(thread_of(row, n))]
                       [4 * (n / 8) + 2 * (row % 16 / 8) + n % 2];
      d = p.add ? d + row_sum[static_cast<std::size_t>(n)] : row_sum[static_cast<std::size_t>(n)];
    }
  }
}

/// Threads start products in one order: where the last has come, so have those before it.
bool complete(const Group& g, std::size_t count) {
  if (g.done >= count) return true;
  if (g.done + g.ops.size() < count) return false;
  const Op& last = g.ops[count - g.done - 1];
  return last.arrived == kThreads && last.due <= Machine::current().passes();
}

void do_until(Group& g, std::size_t count) {
  while (g.done < count) {
    compute(g, g.ops.front());
    g.ops.pop_front();
    ++g.done;
  }
}

void require_same(const Product& a, const Product& b) {
  if (a.columns != b.columns || a.half != b.half || a.add != b.add || a.b != b.b ||
      a.a_rows != b.a_rows || a.a_across != b.a_across || a.b_across != b.b_across ||
      (a.a == nullptr) != (b.a == nullptr)) {
    Machine::current().misuse("threads of a warpgroup start different products");
  }
}

}  // namespace

std::uint32_t element_address(std::uint64_t descriptor, bool across, int row, int k) {
  const auto field = [&](int bit, unsigned bits) {
    return static_cast<std::uint32_t>((descriptor >> bit) & ((std::uint64_t{1} << bits) - 1));
  };
  if (field(62, 2) != 1 || field(49, 3) != 0) {
    Machine::current().misuse("a descriptor without the 128-byte swizzle, or with a base offset");
  }
  const std::uint32_t start = field(0, 14) << 4;
  const std::uint32_t leading = field(16, 14) << 4;
  const std::uint32_t stride = field(32, 14) << 4;
  const auto r = static_cast<std::uint32_t>(row);
  const auto depth = static_cast<std::uint32_t>(k);
  const std::uint32_t linear =
      across ? start + r / 64 * leading + r % 64 * 2 + depth / 8 * stride + depth % 8 * 128
             : start + r / 8 * stride + r % 8 * 128 + depth * 2;
  return swizzled(linear);
}

void fence_products() { self(group()).fenced = true; }

void start(const Product& product, float* accumulators) {
  Group& g = group();
  Thread& thread = self(g);
  if (!thread.fenced) Machine::current().misuse("products without wgmma.fence before them");
  const std::size_t number = thread.started++ - g.done;
  if (number == g.ops.size()) {
    g.ops.push_back({product, 0, 0, {}, {}});
  }
  Op& op = g.ops[number];
  require_same(op.product, product);
  const auto t = static_cast<std::size_t>(Machine::current().thread() % kThreads);
  op.a[t] = product.a;
  op.d[t] = accumulators;
  const auto [entry, fresh] = thread.open.try_emplace(accumulators);
  if (fresh) {
    const auto count = static_cast<std::size_t>(product.columns) / 2;
    entry->second.values.assign(accumulators, accumulators + count);
    std::fill(accumulators, accumulators + count, std::nanf(""));
  }
  ++entry->second.products;
  if (++op.arrived < kThreads) return;
  Machine& machine = Machine::current();
  op.due = number == 0 ? 0 : g.ops[number - 1].due;
  if (number == 0 ? machine.toss() : machine.draw() % 8 == 0) {
    op.due = std::max(op.due, machine.passes() + 1 + machine.draw() % 24);
  }
  if (op.due == 0) do_until(g, g.done + 1);
}

void commit_products() {
  Thread& thread = self(group());
  thread.commits.push_back(thread.started);
}

void wait_products(int pending) {
  Group& g = group();
  Thread& thread = self(g);
  thread.fenced = false;
  const std::size_t left = static_cast<std::size_t>(pending);
  if (thread.commits.size() > left) {
    const std::size_t count = thread.commits[thread.commits.size() - 1 - left];
    Machine::current().block_until("products to ", static_cast<std::int64_t>(count),
                                   [&] { return complete(g, count); });
    do_until(g, count);
  }
  for (auto it = thread.open.begin(); it != thread.open.end();) {
    if (it->second.products > 0) {
      ++it;
      continue;
    }
    std::copy(it->second.values.begin(), it->second.values.end(), it->first);
    it = thread.open.erase(it);
  }
}

void reset_products() { g_groups.clear(); }

}  // namespace annulus::emulate
