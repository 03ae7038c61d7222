#include "tests/emulate/copies.h"

#include "tests/emulate/machine.h"

#include <cuda.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <string>
#include <vector>

namespace annulus::emulate {

namespace {

constexpr int kChunks = 8;  // of 16 bytes a row
constexpr std::uint32_t kRowBytes = kChunks * 16;

using Place = std::array<std::int64_t, 4>;

bool inside(const CUtensorMap& map, const Place& at) {
  for (std::size_t i = 0; i < at.size(); ++i) {
    if (at[i] < 0 || at[i] >= static_cast<std::int64_t>(map.extents[i])) return false;
  }
  return true;
}

void fill_box(std::uint32_t to, const CUtensorMap& map, const Place& first) {
  Machine& machine = Machine::current();
  for (int row = 0; row < map.rows; ++row) {
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      const std::uint32_t address = to + static_cast<std::uint32_t>(row * 128 + chunk * 16);
      std::byte* target = machine.at(swizzled(address), 16);
      const Place at{first[0] + 8 * chunk, first[1] + row, first[2], first[3]};
      if (!inside(map, at)) {
        std::memset(target, 0, 16);
        continue;
      }
      const auto u = [&](std::size_t i) { return static_cast<std::uint64_t>(at[i]); };
      std::memcpy(target,
                  static_cast<const std::byte*>(map.data) + 2 * u(0) + u(1) * map.strides[0] +
                      u(2) * map.strides[1] + u(3) * map.strides[2],
                  16);
    }
  }
}

struct Copy {
  std::uint32_t to;
  const void* from;
  bool real;
};
/// By thread; complete before a thread ends or are lost, as on the GPU.
std::map<int, std::vector<Copy>> g_copies;

void do_copy(const Copy& copy) {
  std::byte* target = Machine::current().at(copy.to, 16);
  if (copy.real) {
    std::memcpy(target, copy.from, 16);
  } else {
    std::memset(target, 0, 16);
  }
}

}  // namespace

void copy_box(std::uint32_t to, const CUtensorMap& map, std::uint64_t* barrier, int c0, int c1,
              int c2, int c3) {
  Machine& machine = Machine::current();
  // 128 would do for the copy engine, but the pattern of tensor cores begins at 1024.
  if (to % 1024 != 0) machine.misuse("a box goes to shared address " + std::to_string(to));
  if (reinterpret_cast<std::uintptr_t>(map.data) % 16 != 0) machine.misuse("a map is not aligned");
  for (const std::uint64_t stride : map.strides) {
    if (stride == 0 || stride % 16 != 0 || stride >> 40 != 0) {
      machine.misuse("a map has a stride of " + std::to_string(stride));
    }
  }
  const std::uint32_t bytes = static_cast<std::uint32_t>(map.rows) * kRowBytes;
  for (std::uint32_t i = 0; i < bytes; i += 16) machine.require_fenced(to + i);
  std::memset(machine.at(to, bytes), 0xff, bytes);
  const Place first{c0, c1, c2, c3};
  machine.later([=, &map] {
    fill_box(to, map, first);
    Machine::current().complete(barrier, bytes);
  });
}

void copy16(std::uint32_t to, const void* from, bool real) {
  Machine& machine = Machine::current();
  if (to % 16 != 0 || reinterpret_cast<std::uintptr_t>(from) % 16 != 0) {
    machine.misuse("a copy of 16 bytes is not aligned");
  }
  std::memset(machine.at(to, 16), 0xff, 16);
  machine.written(to);
  const Copy copy{to, from, real};
  if (machine.toss()) {
    g_copies[machine.thread()].push_back(copy);
  } else {
    do_copy(copy);
  }
}

void wait_copies() {
  auto& copies = g_copies[Machine::current().thread()];
  for (const Copy& copy : copies) {
    do_copy(copy);
    Machine::current().written(copy.to);
  }
  copies.clear();
}

namespace {
std::map<int, int> g_additions;  ///< under way, by thread
}  // namespace

void add_box(const CUtensorMap& map, std::uint32_t from, int c0, int c1, int c2, int c3) {
  Machine& machine = Machine::current();
  if (from % 1024 != 0) machine.misuse("a box is added from " + std::to_string(from));
  const std::uint32_t bytes = static_cast<std::uint32_t>(map.rows) * kRowBytes;
  for (std::uint32_t i = 0; i < bytes; i += 16) machine.require_fenced(from + i);
  int& mine = ++g_additions[machine.thread()];
  machine.later([=, &mine, &map] {
    for (int row = 0; row < map.rows; ++row) {
      for (int column = 0; column < 32; ++column) {
        const Place at{c0 + column, c1 + row, c2, c3};
        if (!inside(map, at)) continue;
        const auto place = from + static_cast<std::uint32_t>(row * 128 + column * 4);
        float value = 0.0F;
        std::memcpy(&value, Machine::current().at(swizzled(place), 4), 4);
        const auto u = [&](std::size_t i) { return static_cast<std::uint64_t>(at[i]); };
        auto* const to = static_cast<const std::byte*>(map.data) + 4 * u(0) +
                         u(1) * map.strides[0] + u(2) * map.strides[1] + u(3) * map.strides[2];
        *reinterpret_cast<float*>(const_cast<std::byte*>(to)) += value;
      }
    }
    --mine;
  });
}

void await_additions() {
  Machine& machine = Machine::current();
  const int& mine = g_additions[machine.thread()];
  machine.block_until("additions of thread ", machine.thread(), [&] { return mine == 0; });
}

void require_no_copies() {
  const bool some = std::any_of(g_copies.begin(), g_copies.end(),
                                [](const auto& entry) { return !entry.second.empty(); });
  g_copies.clear();
  if (some) throw Misuse("a block ended while a thread's copy of 16 bytes was under way");
}

}  // namespace annulus::emulate
