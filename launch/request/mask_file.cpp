#include "launch/request/mask_file.h"

#include "launch/error.h"
#include "launch/io/npy.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <span>

namespace annulus::launch {
namespace {

constexpr std::int64_t kWindow = std::int64_t{1} << 23;

void append_runs(std::span<const std::byte> row, std::vector<KeyInterval>& runs) {
  for (std::size_t j = 0; j < row.size(); ++j) {
    if (row[j] == std::byte{0}) continue;
    const auto key = static_cast<std::int64_t>(j);
    if (runs.empty() || runs.back().end != key) runs.push_back({key, key});
    ++runs.back().end;
  }
}

}  // namespace

Mask read_mask_file(const std::filesystem::path& path, const std::string& where, std::int64_t seq,
                    std::int64_t seq_kv) {
  const InputFile file(path, where);
  const NpyArray array = read_npy_array(file);
  if (array.descr != "|b1" && array.descr != "|u1") {
    file.refuse(fmt::format("is of dtype '{}'; allowed: '|b1' (bool), '|u1' (uint8)",
                            array.descr.substr(0, 20)));
  }
  if (array.shape != std::vector<std::int64_t>{seq, seq_kv}) {
    file.refuse(fmt::format("has the shape [{}]; allowed: [{},{}], seq and seq_kv",
                            fmt::join(array.shape, ","), seq, seq_kv));
  }
  check_npy_data(file, array, seq * seq_kv, "1 byte");
  const std::int64_t step = std::max<std::int64_t>(1, kWindow / seq_kv);
  std::vector<std::byte> window(static_cast<std::size_t>(std::min(step, seq) * seq_kv));
  std::vector<KeyInterval> runs;
  KeyLists rows;
  for (std::int64_t first = 0; first < seq; first += step) {
    const std::int64_t count = std::min(step, seq - first);
    const std::span part(window.data(), static_cast<std::size_t>(count * seq_kv));
    file.read(array.offset + first * seq_kv, part);
    for (std::int64_t i = 0; i < count; ++i) {
      runs.clear();
      append_runs(
          part.subspan(static_cast<std::size_t>(i * seq_kv), static_cast<std::size_t>(seq_kv)),
          runs);
      rows.add_row(runs);
    }
  }
  return Mask::lists(std::move(rows));
}

}  // namespace annulus::launch
