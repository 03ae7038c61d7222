#pragma once

#include "comm/transport.h"

#include <annulus/error.h>

#include <cuda_runtime_api.h>

#include <cstdint>
#include <span>
#include <string>

namespace annulus::comm {

/// One end of a transfer between GPUs. Regions of both ends have the same shape; `theirs` is
/// another rank's memory as this GPU addresses it, and empty where it cannot be addressed or the
/// other end moves the data.
struct DeviceTransfer {
  bool sends = false;
  int peer = 0;
  std::int32_t tag = 0;    ///< unique for (sender, receiver) in a plan
  std::int32_t round = 0;  ///< the same on both ends; transfers of one may be one launch
  Region own;
  Region theirs;
  bool pulls = true;  ///< where one end moves the data: its receiver does; false: its sender
};

/// A stream that transfers are enqueued on, and the word that says what it waits for: 1 + transfer,
/// 0: nothing. A watch reads it. In memory of this GPU: a write to the host's holds up the copy
/// behind it by 0.8 us more (docs/notes/01).
struct LinkStream {
  cudaStream_t stream = nullptr;
  std::uint32_t* awaited = nullptr;
};

/// How the transfers of one plan are enqueued on streams. Transfers are named by their index in the
/// plan. Enqueues only: nothing waits on the host and nothing is allocated, so that graphs capture
/// it.
class DeviceLink {
 public:
  virtual ~DeviceLink() = default;
  virtual const char* name() const = 0;

  /// Transfers that go in one launch are a group, which starts with its last member in enqueue
  /// order: the index of that one. Alone in its group: `transfer`.
  virtual std::int32_t group_end(std::int32_t transfer) const = 0;

  /// True: this end only raises a flag, and is over when the other end says so (await_over). False:
  /// it moves the data itself and is over when the stream has passed it.
  virtual bool by_flag(std::int32_t transfer) const = 0;

  /// From here on this end of a transfer that moves its data here lies there: a caller's tensor,
  /// which may be another one in each call.
  virtual void set_own(std::int32_t /*transfer*/, const Region& /*own*/) {
    throw Unsupported(std::string(name()) + ": transfers move what lies in the arena alone");
  }

  /// It moves while a kernel holds every SM, which may therefore wait for it.
  virtual bool beside_kernels(std::int32_t /*transfer*/) const { return false; }

  /// Enqueues the transfer, or the whole group when it is the group's end.
  virtual void start(std::int32_t transfer, const LinkStream& on) const = 0;

  /// Holds the stream until the other ends of these transfers, by flag, say that they are over.
  virtual void await_over(std::span<const std::int32_t> flags, const LinkStream& on) const = 0;

  /// Raises these transfers' flags, all of which are by flag.
  virtual void raise(std::span<const std::int32_t> flags, const LinkStream& on) const {
    for (const std::int32_t t : flags) start(t, on);
  }

  // start() in parts, for transfers beside kernels that are not by flag: holds the stream until the
  // other ends of all have theirs ready; moves one; tells the other ends that all are over. `write`
  // then says on this GPU how far they are.
  virtual void await_sources(std::span<const std::int32_t> /*transfers*/,
                             const LinkStream& /*on*/) const {
    none_beside_kernels();
  }
  virtual void move(std::int32_t /*transfer*/, const LinkStream& /*on*/) const {
    none_beside_kernels();
  }
  virtual void release(std::span<const std::int32_t> /*transfers*/,
                       const LinkStream& /*on*/) const {
    none_beside_kernels();
  }
  /// A word of this GPU's memory, in stream order, while a kernel holds every SM.
  virtual void write(std::uint32_t* /*word*/, std::uint32_t /*value*/,
                     const LinkStream& /*on*/) const {
    none_beside_kernels();
  }
  /// Holds the stream until such a word, which a kernel of this GPU raises, is no less than
  /// `count`.
  virtual void await_count(std::uint32_t* /*word*/, std::uint32_t /*count*/,
                           const LinkStream& /*on*/) const {
    none_beside_kernels();
  }

  /// Memory operations that follow each other on one stream are one call: this end may hold them
  /// back until here. Whoever enqueues anything else, on whatever stream, says so first, so that
  /// the order of all calls stays as it is.
  virtual void flush() const {}

  /// The word in this rank's memory that a stream waits for when it awaits this transfer, and what
  /// it must hold then; null: none.
  struct Signal {
    const std::uint32_t* word = nullptr;
    std::uint32_t value = 0;
  };
  virtual Signal awaited_signal(std::int32_t /*transfer*/) const { return {}; }

 private:
  [[noreturn]] void none_beside_kernels() const {
    throw Unsupported(std::string(name()) + ": no transfer runs beside kernels");
  }
};

}  // namespace annulus::comm
