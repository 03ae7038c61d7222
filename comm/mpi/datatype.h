#pragma once

#include "comm/transport.h"
#include "runtime/base/handle.h"

#include <mpi.h>

namespace annulus::comm::mpi {

struct DatatypeTraits {
  using Type = MPI_Datatype;
  static Type null() { return MPI_DATATYPE_NULL; }
  static void close(Type type) noexcept { MPI_Type_free(&type); }
};
using Datatype = UniqueHandle<DatatypeTraits>;

/// A committed type; one element of it at region.base is the whole region. Strided regions are
/// sent as they lie, and regions beyond 2^31 bytes are one message. Bytes > 0.
Datatype make_datatype(const Region& region);

}  // namespace annulus::comm::mpi
