#include "comm/mpi/datatype.h"

#include "comm/mpi/check.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <array>

namespace annulus::comm::mpi {

namespace {

// MPI 3.1 counts in int. Runs above this are chunks of this size and a rest.
constexpr std::int64_t kChunk = std::int64_t{1} << 30;

int to_count(std::int64_t count) {
  if (count > std::int64_t{0x7fffffff}) {
    throw Unsupported(fmt::format("a region of {} runs is more than MPI can count", count));
  }
  return static_cast<int>(count);
}

Datatype long_run(std::int64_t bytes) {
  Datatype chunk;
  check(MPI_Type_contiguous(static_cast<int>(kChunk), MPI_BYTE, chunk.out()),
        "MPI_Type_contiguous");
  const std::array<int, 2> lengths{to_count(bytes / kChunk), static_cast<int>(bytes % kChunk)};
  const std::array<MPI_Aint, 2> places{0, (bytes / kChunk) * kChunk};
  const std::array<MPI_Datatype, 2> types{chunk.get(), MPI_BYTE};
  Datatype run;
  check(MPI_Type_create_struct(2, lengths.data(), places.data(), types.data(), run.out()),
        "MPI_Type_create_struct");
  return run;
}

}  // namespace

Datatype make_datatype(const Region& region) {
  const Region joined = coalesce(region);
  const bool long_runs = joined.run > kChunk;
  Datatype type = long_runs ? long_run(joined.run) : Datatype();
  // A block of bytes in the vector is copied faster than a block of one contiguous type.
  MPI_Datatype element = long_runs ? type.get() : MPI_BYTE;
  int block = long_runs ? 1 : static_cast<int>(joined.run);
  for (std::size_t axis = 3; axis-- > 0;) {
    if (joined.count[axis] == 1) continue;
    Datatype outer;
    check(MPI_Type_create_hvector(to_count(joined.count[axis]), block, joined.stride[axis], element,
                                  outer.out()),
          "MPI_Type_create_hvector");
    type = std::move(outer);
    element = type.get();
    block = 1;
  }
  if (!type) {
    check(MPI_Type_contiguous(block, element, type.out()), "MPI_Type_contiguous");
  }
  MPI_Datatype committed = type.get();
  check(MPI_Type_commit(&committed), "MPI_Type_commit");
  return type;
}

}  // namespace annulus::comm::mpi
