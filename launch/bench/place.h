#pragma once

#include "launch/bench/tensors.h"

#include <annulus/annulus.h>

#include <array>
#include <cstddef>
#include <memory>

namespace annulus::launch {

/// Of one call on one rank.
struct CallTime {
  double device_s = 0;  ///< between events around it; on the CPU the call itself
  double host_s = 0;    ///< of the host, to enqueue it
};

/// Where a rank's tensors are while attention runs: the shards themselves, or copies of them on the
/// session's GPU. Collective where it says so, because ranks may share a GPU: cudaMalloc and
/// cudaFree wait for it.
class Place {
 public:
  /// Collective. `shards` outlive it.
  Place(Mesh& mesh, const Session& session, const Shards& shards);

  bool on_device() const { return device_ >= 0; }

  void forward(Attention& attention) const;
  void backward(Attention& attention) const;

  /// Seconds of one call on this rank. Collective. GPU: between events around the call, which is
  /// enqueued on every rank before the first one starts, so that no host time is in it; ranks of a
  /// machine start together.
  double timed(Attention& attention, Pass pass) const { return time(attention, pass).device_s; }
  CallTime time(Attention& attention, Pass pass) const;

  /// GPU: seconds of the host to enqueue a call, or a replay, right behind another one of the same:
  /// neither waits for the GPU, and the host's caches hold what the first one used. Collective.
  double host_again(Attention& attention, Pass pass) const;
  double host_again(Attention& attention, const DeviceGraph& graph) const;

  /// GPU: seconds from a call to its end as the host sees it, with nothing enqueued before.
  /// Collective.
  double cold(Attention& attention, Pass pass) const;
  /// GPU: the call as a graph. Throws where it cannot be captured.
  std::unique_ptr<DeviceGraph> captured(Attention& attention, Pass pass) const;
  /// A replay of it, timed as a call is. Collective.
  CallTime replayed(Attention& attention, const DeviceGraph& graph) const;

  const DeviceStream& stream() const { return stream_; }
  /// False: a call did not fit into a stream's queue. From there on calls start as they are
  /// enqueued.
  bool holds() const { return holds_; }

  /// Collective: waits for the calls, then the results are in the shards.
  void download(const Attention& attention) const;

 private:
  enum Index : std::size_t { kQ, kK, kV, kOut, kLse, kDout, kDq, kDk, kDv, kCount };

  const TensorView& view(Index i) const { return views_[i]; }
  void run(Attention& attention, Pass pass) const;
  template <typename Enqueue>
  double enqueue_twice(Attention& attention, const Enqueue& enqueue) const;

  Mesh& mesh_;
  int device_;
  DeviceStream stream_;
  DeviceTimer timer_;
  mutable bool holds_ = true;  ///< the same on every rank
  std::array<TensorView, kCount> host_;
  std::array<TensorView, kCount> views_;
  std::array<DeviceBytes, kCount> copies_;
};

/// The same for one kernel on one GPU, forward.
class LocalPlace {
 public:
  LocalPlace(int device, const Shards& shards);

  /// Seconds of one call, between events around it.
  double timed(LocalKernel& kernel) const;
  void download() const;

 private:
  DeviceStream stream_;
  std::array<TensorView, 5> host_;  ///< q, k, v, out, lse
  std::array<TensorView, 5> views_;
  std::array<DeviceBytes, 5> copies_;
};

}  // namespace annulus::launch
