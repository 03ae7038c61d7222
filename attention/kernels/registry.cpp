#include "attention/kernels/registry.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <mutex>
#include <utility>

namespace annulus::attn {
namespace {

/// The one mutable table of the library: a back end cannot come in at run time without one.
struct Registry {
  std::mutex mutex;
  std::vector<std::shared_ptr<const Kernel>> rows;
};

Registry& registry() {
  static Registry the_registry;
  return the_registry;
}

void remove(const std::shared_ptr<const Kernel>& row) {
  if (row == nullptr) return;
  Registry& table = registry();
  const std::scoped_lock lock(table.mutex);
  std::erase(table.rows, row);
}

void require_whole(const Kernel& row) {
  const bool whole = !row.name.empty() && !row.backend.empty() && row.tile_q > 0 &&
                     row.tile_k > 0 && row.refuses != nullptr && row.workspace_bytes != nullptr &&
                     row.materialized_bytes != nullptr && row.forward != nullptr &&
                     row.backward != nullptr;
  if (whole) return;
  throw InvalidArgument(fmt::format(
      "kernel '{}' of back end '{}', tiles {} x {}: a row needs names, tiles above 0 and all "
      "functions",
      row.name, row.backend, row.tile_q, row.tile_k));
}

}  // namespace

std::vector<std::shared_ptr<const Kernel>> registered_kernels() {
  Registry& table = registry();
  const std::scoped_lock lock(table.mutex);
  return table.rows;
}

RegisteredKernel::RegisteredKernel(const Kernel& row) : row_(std::make_shared<const Kernel>(row)) {
  require_whole(row);
  const auto same = [&](const auto& other) {
    return other->name == row.name && other->backend == row.backend;
  };
  const std::vector<const Kernel*> built = built_kernels();
  Registry& table = registry();
  const std::scoped_lock lock(table.mutex);
  if (std::ranges::any_of(built, same) || std::ranges::any_of(table.rows, same)) {
    throw InvalidArgument(
        fmt::format("back end '{}' has a kernel '{}' already", row.backend, row.name));
  }
  table.rows.push_back(row_);
}

RegisteredKernel& RegisteredKernel::operator=(RegisteredKernel&& other) noexcept {
  if (this == &other) return *this;
  remove(row_);
  row_ = std::move(other.row_);
  return *this;
}

RegisteredKernel::~RegisteredKernel() { remove(row_); }

}  // namespace annulus::attn
