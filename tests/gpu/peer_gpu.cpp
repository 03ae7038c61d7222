// Rates of the peer transport, signals included, beside the bare copy engine in the same run. Rank
// r receives from rank r - 1, all ranks at once.
//   mpirun -np N peer_gpu [--copies pull|push] [--mib 4,16,64] [--transfers 64] [--gaps]
//   --gaps: also what memory operations between two copies take: each kind; those of a transfer;
//   the same with the note in the host's memory, as it was; and without a note
//   peer_gpu --threads N [--given] ...   ranks are threads; --given: memory of cudaMalloc, as a
//   caller
//                                        may give it, whose reads the driver orders (notes/05)
// Exit status 1: wrong data. 3: something did not end within its deadline. 77: too few GPUs.
#include "tests/gpu/peer_rounds.h"

#include <annulus/error.h>

#include <cuda_runtime_api.h>
#ifdef ANNULUS_TEST_MPI
#include <mpi.h>
#endif

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace annulus::testing {
namespace {

constexpr double kTimeout = 30.0;

struct Arguments {
  PeerOptions peer;
  int threads = 0;
  std::vector<std::int64_t> mib{4, 16, 64};
  bool gaps = false;
};

[[noreturn]] void usage() {
  std::fprintf(stderr,
               "peer_gpu [--threads N] [--given] [--copies pull|push] [--mib 4,16,64] "
               "[--transfers 64] [--gaps]\n");
  std::exit(2);
}

std::vector<std::int64_t> numbers(std::string_view text) {
  std::vector<std::int64_t> list;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t end = std::min(text.find(',', at), text.size());
    list.push_back(std::atoll(std::string(text.substr(at, end - at)).c_str()));
    if (list.back() < 1) usage();
    at = end + 1;
  }
  return list;
}

Arguments parse(int argc, char** argv) {
  Arguments arguments;
  for (int i = 1; i < argc; ++i) {
    const std::string_view name = argv[i];
    if (name == "--gaps") {
      arguments.gaps = true;
      continue;
    }
    if (name == "--given") {
      arguments.peer.given = true;
      continue;
    }
    if (i + 1 == argc) usage();
    const std::string_view value = argv[++i];
    if (name == "--threads") {
      arguments.threads = static_cast<int>(numbers(value).front());
    } else if (name == "--transfers") {
      arguments.peer.transfers = static_cast<int>(numbers(value).front());
    } else if (name == "--mib") {
      arguments.mib = numbers(value);
    } else if (name == "--copies" && (value == "pull" || value == "push")) {
      arguments.peer.pulls = value == "pull";
    } else {
      usage();
    }
  }
  return arguments;
}

/// One rank. False: wrong data.
bool run(comm::Communicator& communicator, const Arguments& arguments) {
  int gpus = 0;
  check_cuda(cudaGetDeviceCount(&gpus), "cudaGetDeviceCount");
  const int device = comm::local_rank(communicator) % gpus;
  check_cuda(cudaSetDevice(device), "cudaSetDevice");
  PeerOptions options = arguments.peer;
  options.largest = *std::max_element(arguments.mib.begin(), arguments.mib.end()) << 20;
  PeerRounds rounds(communicator, device, options);
  const bool speaks = communicator.rank() == 0;
  if (speaks) {
    std::printf("%d ranks as %s, %s%s, %d transfers back to back, GB/s of the slowest rank\n",
                communicator.size(), arguments.threads > 0 ? "threads" : "processes",
                options.pulls ? "pull" : "push", options.given ? ", memory of cudaMalloc" : "",
                options.transfers);
    std::printf("%8s %12s %12s %12s %12s %8s %12s %12s\n", "MiB", "one copy", "bare copies",
                "4K of 8K", "to 16 rows", "peer", "of bare", "two streams");
  }
  bool right = true;
  for (const std::int64_t mib : arguments.mib) {
    const PeerRates rates = rounds.measure(mib << 20);
    right = right && rates.right;
    if (!speaks) continue;
    std::printf("%8lld %12.1f %12.1f %12.1f %12.1f %8.1f %11.1f%% %12.1f%s\n",
                static_cast<long long>(mib), rates.one_gb_s, rates.bare_gb_s, rates.rows_gb_s,
                rates.land_gb_s, rates.peer_gb_s, 100.0 * rates.peer_gb_s / rates.bare_gb_s,
                rates.turns_gb_s, rates.right ? "" : "  WRONG DATA");
    std::fflush(stdout);
  }
  for (const std::int64_t mib : arguments.gaps ? arguments.mib : std::vector<std::int64_t>{}) {
    for (const PeerGap& gap : rounds.gaps(mib << 20)) {
      if (!speaks) continue;
      std::printf("%8lld MiB, between two copies: %-30s %8.2f us a copy\n",
                  static_cast<long long>(mib), gap.operations, gap.us);
    }
  }
  return right;
}

int as_threads(const Arguments& arguments) {
  const auto communicators = comm::make_local_communicators(arguments.threads, kTimeout);
  std::vector<int> codes(communicators.size(), 0);
  std::vector<std::jthread> ranks;
  for (std::size_t r = 0; r < codes.size(); ++r) {
    ranks.emplace_back([&, r] {
      try {
        codes[r] = run(*communicators[r], arguments) ? 0 : 1;
      } catch (const std::exception& error) {
        std::fprintf(stderr, "rank %zu: %s\n", r, error.what());
        std::_Exit(3);  // streams may hang: nothing can be taken down
      }
    });
  }
  ranks.clear();
  return *std::max_element(codes.begin(), codes.end());
}

int as_processes(int argc, char** argv, const Arguments& arguments) {
#ifdef ANNULUS_TEST_MPI
  MPI_Init(&argc, &argv);
  int code = 0;
  try {
    const auto communicator =
        comm::make_mpi_communicator(MPI_Comm_c2f(MPI_COMM_WORLD), kTimeout, true);
    code = run(*communicator, arguments) ? 0 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    std::_Exit(3);
  }
  MPI_Finalize();
  return code;
#else
  (void)argc;
  (void)argv;
  (void)arguments;
  std::fprintf(stderr, "built without MPI: give --threads\n");
  return 2;
#endif
}

}  // namespace
}  // namespace annulus::testing

int main(int argc, char** argv) {
  using namespace annulus::testing;
  const Arguments arguments = parse(argc, argv);
  int gpus = 0;
  if (cudaGetDeviceCount(&gpus) != cudaSuccess || gpus == 0) {
    std::printf("no GPU\n");
    return 77;
  }
  return arguments.threads > 0 ? as_threads(arguments) : as_processes(argc, argv, arguments);
}
