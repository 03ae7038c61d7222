#pragma once

#include "launch/world.h"

#include <annulus/mesh.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace annulus::launch {

/// A thread that ends the process where nothing else can: when a call of MPI does not come back
/// (MPI_Init with a stopped rank never does) and when a signal arrives. SIGTERM and SIGINT are
/// blocked in all threads and taken here, so that no handler and no global is needed. Make it
/// before any other thread.
class Sentinel {
 public:
  explicit Sentinel(const World& started);
  Sentinel(const Sentinel&) = delete;
  Sentinel& operator=(const Sentinel&) = delete;
  ~Sentinel();

  /// Unless disarm() comes within `seconds`: says what hung and ends the process with code 3.
  void arm(double seconds, std::string what);
  void disarm();

  /// A signal aborts these meshes, whose waits then end with CommError. Empty: none any more.
  void guard(std::vector<Mesh*> meshes);
  bool interrupted() const { return interrupted_; }

  /// Ends the process with code 3 without MPI_Finalize, which would wait for the lost rank. Rank 0
  /// says `what`; another rank only where rank 0 does not end the job, so that one line is printed.
  [[noreturn]] void leave(const std::string& what);

 private:
  using Clock = std::chrono::steady_clock;

  void watch();
  void on_signal(int signal);

  World started_;
  std::atomic<bool> interrupted_ = false;
  std::atomic<bool> stop_ = false;
  std::mutex lock_;
  bool armed_ = false;
  Clock::time_point deadline_{};
  std::string what_;
  std::vector<Mesh*> meshes_;
  std::thread thread_;
};

/// Meshes under guard, as long as they live: declare it after them.
class Guarded {
 public:
  Guarded(Sentinel& sentinel, std::vector<Mesh*> meshes) : sentinel_(sentinel) {
    sentinel_.guard(std::move(meshes));
  }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  ~Guarded() { sentinel_.guard({}); }

 private:
  Sentinel& sentinel_;
};

}  // namespace annulus::launch
