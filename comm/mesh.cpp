#include "comm/mesh.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <cmath>
#include <optional>

namespace annulus {

namespace {

std::string describe(const MeshShape& shape) {
  return fmt::format("ring {} x ulysses {}, expert {}", shape.ring, shape.ulysses, shape.expert);
}

void check_timeout(double timeout_s) {
  if (std::isnan(timeout_s) || timeout_s <= 0.0) {
    throw InvalidArgument(fmt::format("timeout_s {} is not above 0", timeout_s));
  }
}

void check_degrees(const MeshShape& shape) {
  if (shape.ring < 1 || shape.ulysses < 1 || shape.expert < 1) {
    throw InvalidArgument(fmt::format("mesh {}: every degree must be at least 1", describe(shape)));
  }
}

void check_world(const MeshShape& shape, int size) {
  const std::int64_t world = std::int64_t{shape.ring} * shape.ulysses;
  if (world == size) return;
  throw InvalidArgument(
      fmt::format("mesh {} needs {} ranks, there are {}", describe(shape), world, size));
}

Logger open_log(const comm::Communicator& communicator, const LogOptions& options) {
  return Logger(options, {.rank = communicator.rank(),
                          .world = communicator.size(),
                          .host = std::string(communicator.host())});
}

/// A log file that one rank cannot open must not leave the others in their first wait.
Logger open_log_together(comm::Communicator& communicator, const LogOptions& options) {
  std::optional<Logger> logger;
  std::string error;
  try {
    logger.emplace(open_log(communicator, options));
  } catch (const Error& failure) {
    error = failure.what();
  }
  comm::require_success(communicator, "mesh set-up", error);
  return std::move(*logger);
}

std::unique_ptr<detail::MeshImpl> make_impl(std::unique_ptr<comm::Communicator> communicator,
                                            MeshShape shape, const MeshOptions& options,
                                            Logger logger) {
  logger.debug("mesh {}, transport {}, timeout {} s", describe(shape),
               communicator->transport().name(), options.timeout_s);
  return std::make_unique<detail::MeshImpl>(
      detail::MeshImpl{std::move(communicator), shape, options, std::move(logger)});
}

}  // namespace

Mesh::Mesh(std::unique_ptr<detail::MeshImpl> impl) : impl_(std::move(impl)) {}
Mesh::Mesh(Mesh&&) noexcept = default;
Mesh& Mesh::operator=(Mesh&&) noexcept = default;
Mesh::~Mesh() = default;

std::vector<Mesh> Mesh::threads(MeshShape shape, const MeshOptions& options) {
  check_timeout(options.timeout_s);
  check_degrees(shape);
  constexpr int kMaxThreads = 4096;
  if (std::int64_t{shape.ring} * shape.ulysses > kMaxThreads) {
    throw InvalidArgument(
        fmt::format("mesh {}: one process holds at most {} ranks", describe(shape), kMaxThreads));
  }
  std::vector<Mesh> meshes;
  for (auto& communicator : comm::make_local_communicators(shape.world(), options.timeout_s)) {
    Logger logger = open_log(*communicator, options.log);
    meshes.push_back(Mesh(make_impl(std::move(communicator), shape, options, std::move(logger))));
  }
  return meshes;
}

namespace {

/// Of ranks that are processes.
std::unique_ptr<detail::MeshImpl> make_together(std::unique_ptr<comm::Communicator> communicator,
                                                MeshShape shape, const MeshOptions& options) {
  // Checked after the ranks agreed on it, so that one rank's wrong shape is an error on all.
  comm::require_agreement(*communicator, "mesh shape", describe(shape));
  check_degrees(shape);
  check_world(shape, communicator->size());
  Logger logger = open_log_together(*communicator, options.log);
  return make_impl(std::move(communicator), shape, options, std::move(logger));
}

}  // namespace

Mesh Mesh::from_mpi(int fortran_communicator, MeshShape shape, const MeshOptions& options) {
  check_timeout(options.timeout_s);
  return Mesh(make_together(
      comm::make_mpi_communicator(fortran_communicator, options.timeout_s, options.shared_memory),
      shape, options));
}

Mesh Mesh::from_nccl(void* communicator, MeshShape shape, const MeshOptions& options) {
  check_timeout(options.timeout_s);
  return Mesh(
      make_together(comm::make_nccl_communicator(communicator, options.timeout_s), shape, options));
}

Mesh Mesh::single(const MeshOptions& options) {
  return std::move(threads(MeshShape{}, options).front());
}

int Mesh::rank() const { return impl_->communicator->rank(); }
int Mesh::world() const { return impl_->communicator->size(); }
const MeshShape& Mesh::shape() const { return impl_->shape; }
std::string Mesh::transport() const { return impl_->communicator->transport().name(); }

void Mesh::abort() noexcept {
  if (impl_) impl_->communicator->abort();
}

}  // namespace annulus
