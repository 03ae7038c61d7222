#include "launch/ranks/sentinel.h"

#include "launch/error.h"

#include <fmt/format.h>

#include <csignal>
#include <cstdio>
#include <ctime>
#include <unistd.h>
#include <utility>

namespace annulus::launch {
namespace {

constexpr std::chrono::milliseconds kBeat{50};
constexpr std::chrono::milliseconds kRankZeroSpeaks{1500};
constexpr std::chrono::seconds kAfterSignal{3};

sigset_t watched_signals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  return set;
}

}  // namespace

Sentinel::Sentinel(const World& started) : started_(started) {
  const sigset_t set = watched_signals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  thread_ = std::thread([this] { watch(); });
}

Sentinel::~Sentinel() {
  stop_ = true;
  thread_.join();
  const sigset_t set = watched_signals();
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

void Sentinel::arm(double seconds, std::string what) {
  const std::scoped_lock lock(lock_);
  armed_ = true;
  deadline_ = Clock::now() + std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1e3));
  what_ = std::move(what);
}

void Sentinel::disarm() {
  const std::scoped_lock lock(lock_);
  armed_ = false;
}

void Sentinel::guard(std::vector<Mesh*> meshes) {
  const std::scoped_lock lock(lock_);
  meshes_ = std::move(meshes);
}

void Sentinel::on_signal(int signal) {
  const std::scoped_lock lock(lock_);
  // Launchers send SIGTERM more than once; a second Ctrl-C is somebody who cannot wait.
  if (meshes_.empty() || (interrupted_ && signal == SIGINT)) _exit(kRuntime);
  if (interrupted_) return;
  interrupted_ = true;
  for (Mesh* mesh : meshes_) mesh->abort();
  // What does not wait in the library (a long reference check) is not ended by abort().
  armed_ = true;
  deadline_ = Clock::now() + kAfterSignal;
  what_ = "interrupted by a signal";
}

void Sentinel::watch() {
  const sigset_t set = watched_signals();
  const timespec beat{.tv_sec = 0, .tv_nsec = std::chrono::nanoseconds(kBeat).count()};
  while (!stop_) {
    const int signal = sigtimedwait(&set, nullptr, &beat);
    if (signal > 0) on_signal(signal);
    std::string what;
    {
      const std::scoped_lock lock(lock_);
      if (!armed_ || Clock::now() < deadline_) continue;
      what = what_;
    }
    leave(what);
  }
}

void Sentinel::leave(const std::string& what) {
  if (started_.rank != 0) {
    // mpirun ends us with SIGTERM as soon as rank 0 has left; past that time rank 0 is the lost
    // one.
    const auto patience = kRankZeroSpeaks + kBeat * std::min(started_.rank, 20);
    const sigset_t set = watched_signals();
    const timespec wait{
        .tv_sec = std::chrono::duration_cast<std::chrono::seconds>(patience).count(),
        .tv_nsec = std::chrono::nanoseconds(patience % std::chrono::seconds(1)).count()};
    if (interrupted_ || sigtimedwait(&set, nullptr, &wait) > 0) _exit(kRuntime);
  }
  // What the library throws begins with its rank.
  const std::string who = what.starts_with("rank ") ? "" : fmt::format("rank {}: ", started_.rank);
  fmt::print(stderr, "annulus: {}{}\n", who, what);
  std::fflush(nullptr);
  _exit(kRuntime);
}

}  // namespace annulus::launch
