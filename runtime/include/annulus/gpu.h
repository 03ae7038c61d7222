#pragma once

#include <annulus/export.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace annulus {

struct GpuInfo {
  int ordinal = 0;  ///< CUDA's
  std::string name;
  std::string capability;  ///< "9.0"
  std::string bus_id;
  std::int64_t memory_bytes = 0;
  int sms = 0;
  int copy_engines = 0;
};

/// Copies by copy engine between neighbours, one at a time, each timed on the device behind a gate.
struct LinkRate {
  std::int64_t bytes = 0;
  double pull_gb_s = 0;  ///< 1e9 bytes/s, issued by the GPU that receives; median
  double push_gb_s = 0;  ///< issued by the GPU that owns the source
  double nccl_gb_s = 0;  ///< a message through NCCL; 0: not measured
};
struct GpuLink {
  int to = 0;    ///< ordinals: `to` receives
  int from = 0;  ///< what `from` owns
  std::vector<LinkRate> rates;
};

/// `copies` copies of `bytes` each, queued on one stream before the first starts, took `seconds`.
struct CopySample {
  std::int64_t bytes = 0;
  int copies = 0;
  double seconds = 0;
};

/// A queued copy takes seconds_a_copy + bytes / bytes_a_second.
struct CopyModel {
  double seconds_a_copy = 0;
  double bytes_a_second = 0;
  double worst_error = 0;  ///< largest |predicted / measured - 1| of the samples
};

/// Least squares of relative errors. Throws InvalidArgument without two sizes, or for times that
/// are no copies' (not positive, or shorter for more bytes).
ANNULUS_API CopyModel fit_copy_model(std::span<const CopySample> samples);

/// An operation of another stream, enqueued while a kernel holds every thread of every SM.
struct BesideFullKernel {
  std::string operation;  ///< "local copy"
  bool starts = false;    ///< it finished while the kernel was still there
  std::string untried;    ///< why nobody tried; empty: somebody did
};

struct QueueLimits {
  std::string max_connections;  ///< CUDA_DEVICE_MAX_CONNECTIONS: "8 (default)", or what is set
  /// So many streams may wait for a value in memory before a kernel of the next stream is held up
  /// behind them; as many as were tried where `limited` is false.
  int waiting_streams = 0;
  bool limited = false;
};

/// What the GPUs of this process can do, measured in a few seconds. Sections that failed say so in
/// `problems`, and are empty.
struct GpuSurvey {
  std::string unavailable;  ///< why there is no GPU; empty: there is one
  std::string driver;       ///< "580.159.04, CUDA 13.0"
  std::string runtime;      ///< the CUDA version that this was built with
  std::vector<GpuInfo> gpus;
  std::vector<std::vector<bool>> peer_access;  ///< [of][to]: may a GPU address another's memory?
  std::string links_unavailable;               ///< "one GPU: no links"; empty: see links
  std::vector<GpuLink> links;                  ///< each GPU and the next
  std::string nccl_unavailable;  ///< why there are no rates through NCCL, which the first link has
  std::string copies_of;         ///< what was queued: "pulls of GPU 0 from GPU 1"
  std::vector<CopySample> copy_samples;
  CopyModel copy_model;
  std::vector<BesideFullKernel> beside;
  QueueLimits queues;
  std::string counters_unavailable;  ///< why HardwareCounters cannot count; empty: see counters
  std::string counters;              ///< the counters' names
  std::vector<std::string> problems;
};

/// Looks at all GPUs of the process, alone: other work would disturb it and be disturbed. Takes up
/// to 256 MiB of each. Never throws for what a machine lacks. Each wait gives up after `timeout_s`.
ANNULUS_API GpuSurvey survey_gpus(double timeout_s = 10.0);

}  // namespace annulus
