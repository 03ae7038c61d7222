#include "tests/moe/kernels/device.h"

#include "tests/moe/kernels/launches.h"

#include <cstdlib>
#include <cstring>
#include <vector>

namespace annulus::testing {

namespace {

using namespace moe::cuda;  // NOLINT

void route(RouteParams p, void* /*stream*/) { launch_route(p, 16, 1); }
void route_backward(RouteBackwardParams p, void* /*stream*/) { launch_route_backward(p, 16, 2); }
void count_losses(LossParams p, void* /*stream*/) { launch_count_losses(p, 16, 7); }
void add_losses(LossParams p, void* /*stream*/) { launch_add_losses(p, 16, 8); }
void drop_pairs(const DropParams& p, void* /*stream*/) { launch_drop(p, 9); }
void jitter(const JitterParams& p, void* /*stream*/) { launch_jitter(p, 10); }
void update_bias(const BiasParams& p, void* /*stream*/) { launch_update_bias(p); }
void count_pairs(const PlaceParams& p, void* /*stream*/) { launch_counts(p, 3); }
void place_pairs(const PlaceParams& p, void* /*stream*/) { launch_places(p, 3); }
void scatter(const ScatterParams& p, int /*blocks*/, void* /*stream*/) {
  launch_scatter(p, nullptr, (p.bytes | p.from_stride) % 16 == 0 ? 16 : 2, 4);
}
void combine(const CombineParams& p, int /*blocks*/, void* /*stream*/) {
  launch_combine(p, nullptr, false, 6);
}
void fetch(const FetchParams& p, void* /*stream*/) {
  launch_fetch(p, nullptr, p.bytes % 16 == 0 ? 16 : 2, 11);
}
void pull(const PullParams& p, void* /*stream*/) { launch_pull(p, nullptr); }
void split(const SplitParams& p, void* /*stream*/) { launch_split(p, 5); }

std::shared_ptr<void> allocate(std::int64_t bytes) {
  const auto size = static_cast<std::size_t>((bytes + 63) / 64 * 64);
  std::shared_ptr<void> memory(std::aligned_alloc(64, size), std::free);
  std::memset(memory.get(), 0xff, size);
  return memory;
}

void read(void* host, const void* device, std::int64_t bytes, void* /*stream*/) {
  std::memcpy(host, device, static_cast<std::size_t>(bytes));
}

void put(void* device, const void* host, std::int64_t bytes, void* /*stream*/) {
  std::memcpy(device, host, static_cast<std::size_t>(bytes));
}

void wait(void* /*stream*/) {}

void follow(void* /*stream*/, void* /*other*/) {}

void clear(void* device, std::int64_t bytes, void* /*stream*/) {
  std::memset(device, 0, static_cast<std::size_t>(bytes));
}

}  // namespace

moe::Device test_device() {
  moe::Device device{.kernel = &moe::kernel("cpu"),
                     .route = route,
                     .route_backward = route_backward,
                     .count_losses = count_losses,
                     .add_losses = add_losses,
                     .drop_pairs = drop_pairs,
                     .jitter = jitter,
                     .update_bias = update_bias,
                     .count_pairs = count_pairs,
                     .place_pairs = place_pairs,
                     .scatter = scatter,
                     .combine = combine,
                     .fetch = fetch,
                     .pull = pull,
                     .split = split,
                     .allocate = allocate,
                     .read = read,
                     .write = put,
                     .wait = wait,
                     .clear = clear};
  static int second_stream = 0;  // everything is done when a call returns
  device.travel = &second_stream;
  device.follow = follow;
  const std::int64_t bytes = device.kernel->workspace_bytes(1);
  device.library = allocate(bytes);  // holds the workspace
  device.context.workspace = {static_cast<std::byte*>(device.library.get()),
                              static_cast<std::size_t>(bytes)};
  return device;
}

void use_device(int /*rank*/, int /*ranks*/) {}

void write(void* device, const void* host, std::int64_t bytes) {
  std::memcpy(device, host, static_cast<std::size_t>(bytes));
}

}  // namespace annulus::testing
