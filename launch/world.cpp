#include "launch/world.h"

#include "launch/error.h"
#include "launch/options/value.h"

#include <fmt/format.h>

#include <array>

namespace annulus::launch {
namespace {

struct Launcher {
  const char* name;
  const char* rank;
  const char* size;
};

// In this order: under `sbatch` and `salloc`, mpirun's own figures count. The step's task number
// rather than SLURM_NTASKS, which a batch script has too without being one of several tasks.
constexpr std::array<Launcher, 3> kLaunchers{{
    {"mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"},
    {"mpirun", "PMI_RANK", "PMI_SIZE"},
    {"srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"},
}};

int read_variable(const char* name, const char* text) {
  std::int64_t value = 0;
  if (!read_integer(text, value) || value < 0 || value > 65536) {
    throw UsageError(fmt::format("{}: '{}' is not what a launcher sets", name, text));
  }
  return static_cast<int>(value);
}

}  // namespace

World detect_world(const GetVariable& get) {
  for (const Launcher& launcher : kLaunchers) {
    const char* rank = get(launcher.rank);
    const char* size = get(launcher.size);
    if (rank == nullptr || size == nullptr) continue;
    World world{.rank = read_variable(launcher.rank, rank),
                .size = read_variable(launcher.size, size),
                .launcher = launcher.name};
    // A shell that srun opened is one task; nothing to join there.
    if (world.launcher == "srun" && world.size == 1) continue;
    return world;
  }
  return {};
}

}  // namespace annulus::launch
