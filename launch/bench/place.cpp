#include "launch/bench/place.h"

#include "launch/bench/hold.h"

#include <annulus/collective.h>

#include <chrono>

namespace annulus::launch {
namespace {

std::int64_t bytes_of(const TensorView& view) { return view.elements() * size_of(view.dtype); }

std::span<std::byte> bytes(const TensorView& view) {
  return {static_cast<std::byte*>(view.data), static_cast<std::size_t>(bytes_of(view))};
}

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

Place::Place(Mesh& mesh, const Session& session, const Shards& s)
    : mesh_(mesh),
      device_(session.device()),
      host_{s.q.view(),    s.k.view(),  s.v.view(),  s.out.view(), s.lse.view(),
            s.dout.view(), s.dq.view(), s.dk.view(), s.dv.view()},
      views_(host_) {
  if (!on_device()) return;
  stream_ = DeviceStream(device_);
  timer_ = DeviceTimer(device_);
  for (std::size_t i = 0; i < kCount; ++i) {
    if (host_[i].data == nullptr) continue;
    copies_[i] = DeviceBytes(bytes_of(host_[i]), device_);
    views_[i].data = copies_[i].data();
  }
  for (const Index i : {kQ, kK, kV, kDout}) {
    if (host_[i].data != nullptr) copies_[i].upload(bytes(host_[i]));
  }
  barrier(mesh_, "tensors are on the GPUs");
}

void Place::forward(Attention& attention) const {
  attention.forward(view(kQ), view(kK), view(kV), view(kOut), view(kLse), stream_.get());
}

void Place::backward(Attention& attention) const {
  attention.backward(view(kDout), view(kQ), view(kK), view(kV), view(kOut), view(kLse), view(kDq),
                     view(kDk), view(kDv), stream_.get());
}

void Place::run(Attention& attention, Pass pass) const {
  if (pass == Pass::forward) {
    forward(attention);
  } else {
    backward(attention);
  }
}

CallTime Place::time(Attention& attention, Pass pass) const {
  barrier(mesh_, "before a timed call");
  if (!on_device()) {
    const double start = seconds();
    run(attention, pass);
    return {.device_s = seconds() - start};
  }
  Hold hold(mesh_, stream_, holds_);
  const double start = seconds();
  run(attention, pass);
  const double host_s = seconds() - start;
  holds_ = hold.open("a timed call is enqueued");
  return {.device_s = attention.stats(pass).total_s, .host_s = host_s};
}

template <typename Enqueue>
double Place::enqueue_twice(Attention& attention, const Enqueue& enqueue) const {
  barrier(mesh_, "before calls in a row");
  Hold hold(mesh_, stream_, holds_);
  enqueue();
  const double start = seconds();
  enqueue();
  const double host_s = seconds() - start;
  holds_ = hold.open("calls in a row are enqueued");
  attention.synchronize(stream_.get());
  return host_s;
}

double Place::host_again(Attention& attention, Pass pass) const {
  return enqueue_twice(attention, [&] { run(attention, pass); });
}

double Place::host_again(Attention& attention, const DeviceGraph& graph) const {
  return enqueue_twice(attention, [&] { graph.launch(stream_); });
}

double Place::cold(Attention& attention, Pass pass) const {
  barrier(mesh_, "before a cold call");
  const double start = seconds();
  run(attention, pass);
  attention.synchronize(stream_.get());
  return seconds() - start;
}

std::unique_ptr<DeviceGraph> Place::captured(Attention& attention, Pass pass) const {
  return std::make_unique<DeviceGraph>(stream_, [&] { run(attention, pass); });
}

CallTime Place::replayed(Attention& attention, const DeviceGraph& graph) const {
  barrier(mesh_, "before a replay");
  Hold hold(mesh_, stream_, holds_);
  timer_.begin(stream_);
  const double start = seconds();
  graph.launch(stream_);
  const double host_s = seconds() - start;
  timer_.end(stream_);
  holds_ = hold.open("a replay is enqueued");
  attention.synchronize(stream_.get());
  return {.device_s = timer_.seconds(), .host_s = host_s};
}

void Place::download(const Attention& attention) const {
  if (!on_device()) return;
  attention.synchronize(stream_.get());
  barrier(mesh_, "results are on the GPUs");
  for (const Index i : {kOut, kLse, kDq, kDk, kDv}) {
    if (host_[i].data != nullptr) copies_[i].download(bytes(host_[i]));
  }
}

LocalPlace::LocalPlace(int device, const Shards& s)
    : stream_(device),
      host_{s.q.view(), s.k.view(), s.v.view(), s.out.view(), s.lse.view()},
      views_(host_) {
  for (std::size_t i = 0; i < host_.size(); ++i) {
    copies_[i] = DeviceBytes(bytes_of(host_[i]), device);
    views_[i].data = copies_[i].data();
    if (i < 3) copies_[i].upload(bytes(host_[i]));
  }
}

double LocalPlace::timed(LocalKernel& kernel) const {
  stream_.hold();
  kernel.forward(views_[0], views_[1], views_[2], views_[3], views_[4], stream_.get());
  stream_.release();
  return kernel.counters().seconds;
}

void LocalPlace::download() const {
  for (const std::size_t i : {std::size_t{3}, std::size_t{4}}) copies_[i].download(bytes(host_[i]));
}

}  // namespace annulus::launch
