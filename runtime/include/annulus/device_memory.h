#pragma once

#include <annulus/attention.h>
#include <annulus/export.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

namespace annulus {

/// Memory on a GPU, for callers that have no CUDA code of their own. All functions throw
/// Unsupported where CUDA is not built, DeviceError where CUDA fails.
class ANNULUS_API DeviceBytes {
 public:
  DeviceBytes() = default;
  /// Every byte 0xff: a NaN in every floating-point type.
  DeviceBytes(std::int64_t bytes, int device);
  DeviceBytes(DeviceBytes&& other) noexcept;
  DeviceBytes& operator=(DeviceBytes&& other) noexcept;
  ~DeviceBytes();

  std::byte* data() const { return data_; }
  std::int64_t bytes() const { return bytes_; }

  /// Both return when the bytes have arrived; calls on other streams are not waited for.
  void upload(std::span<const std::byte> from);
  void download(std::span<std::byte> to) const;

 private:
  std::byte* data_ = nullptr;
  std::int64_t bytes_ = 0;
  int device_ = 0;
};

/// A stream that the legacy default stream does not wait for.
class ANNULUS_API DeviceStream {
 public:
  DeviceStream() = default;
  explicit DeviceStream(int device);
  DeviceStream(DeviceStream&& other) noexcept;
  DeviceStream& operator=(DeviceStream&& other) noexcept;
  ~DeviceStream();

  Stream get() const { return stream_; }
  int device() const { return device_; }

  /// What is enqueued from here on waits for release(), so that a measurement starts when all of it
  /// is there. Copies to and from pageable memory may not be enqueued in between.
  void hold() const;
  void release() const;

 private:
  Stream stream_ = nullptr;
  std::uint32_t* gate_ = nullptr;  ///< mapped host memory
  int device_ = -1;
};

/// Seconds between two points of a stream.
class ANNULUS_API DeviceTimer {
 public:
  DeviceTimer() = default;
  explicit DeviceTimer(int device);
  DeviceTimer(DeviceTimer&& other) noexcept;
  DeviceTimer& operator=(DeviceTimer&& other) noexcept;
  ~DeviceTimer();

  void begin(const DeviceStream& stream) const;
  void end(const DeviceStream& stream) const;
  /// Once the stream has passed end().
  double seconds() const;

 private:
  void* begin_ = nullptr;
  void* end_ = nullptr;
};

/// What `calls` enqueue on a stream, captured into a CUDA graph and made ready to be replayed.
/// Making and dropping it may wait for the GPU.
class ANNULUS_API DeviceGraph {
 public:
  DeviceGraph(const DeviceStream& stream, const std::function<void()>& calls);
  DeviceGraph(const DeviceGraph&) = delete;
  DeviceGraph& operator=(const DeviceGraph&) = delete;
  ~DeviceGraph();

  void launch(const DeviceStream& stream) const;

 private:
  void* ready_ = nullptr;
};

/// GPUs that this process sees; 0 where CUDA is not built or there is no driver. Never throws.
ANNULUS_API int device_count();

/// Bytes of the GPU that are in use, by everybody.
ANNULUS_API std::int64_t device_memory_used(int device);
/// "NVIDIA H200"
ANNULUS_API std::string device_name(int device);

/// What a GPU's peak rate follows from.
struct DeviceSize {
  int multiprocessors = 0;
  double clock_hz = 0;  ///< the highest that they may have
  int major = 0;        ///< compute capability
  int minor = 0;
};
ANNULUS_API DeviceSize device_size(int device);

}  // namespace annulus
