#include "tests/gpu/device_kernel.h"

#include "attention/kernels/tile_index.h"

#include <annulus/error.h>

#include <algorithm>
#include <string>
#include <utility>

namespace annulus::testing {

namespace {

using attn::AttendGeometry;
using attn::Kernel;
using attn::LaunchContext;

// on_device says so
const Kernel* g_kernel = nullptr;
bool g_deterministic = false;

/// As sessions have them.
TileLists lists() {
  return g_kernel->joined_tiles && !g_deterministic ? TileLists::joined : TileLists::single;
}

/// An operand's copy in device memory. Test operands end where their last batch does.
template <typename Pointer>
class DeviceOperand {
 public:
  DeviceOperand(const attn::Operand<Pointer>& host, std::int64_t batch)
      : host_(host),
        bytes_(std::span(static_cast<const std::byte*>(host.data), size(host, batch))),
        device_(host) {
    device_.data = bytes_.data();
  }
  const attn::Operand<Pointer>& get() const { return device_; }
  void read_back() const {
    if (bytes_.size() > 0)
      bytes_.read(static_cast<std::byte*>(const_cast<void*>(static_cast<const void*>(host_.data))));
  }

 private:
  static std::size_t size(const attn::Operand<Pointer>& host, std::int64_t batch) {
    return host.data == nullptr
               ? 0
               : static_cast<std::size_t>(batch * host.batch_stride * size_of(host.dtype));
  }

  attn::Operand<Pointer> host_;
  DeviceBytes bytes_;
  attn::Operand<Pointer> device_;
};
using DeviceInput = DeviceOperand<const void*>;
using DeviceOutput = DeviceOperand<void*>;

/// K and V of a launch's sources in device memory, and their list there.
class DeviceSources {
 public:
  explicit DeviceSources(const AttendGeometry& host)
      : inputs_(inputs_of(host)),
        sources_(sources_in(host, inputs_)),
        list_(upload(std::span<const attn::KeySource>(sources_))) {}
  void put_into(AttendGeometry& device) const {
    const auto* list = reinterpret_cast<const attn::KeySource*>(list_.data());
    device.sources = {list, sources_.size()};
    device.sources_on_host = sources_;
  }

 private:
  /// K and V of each in turn.
  static std::vector<DeviceInput> inputs_of(const AttendGeometry& host) {
    std::vector<DeviceInput> inputs;
    for (const attn::KeySource& source : host.sources) {
      inputs.emplace_back(source.k, host.batch);
      inputs.emplace_back(source.v, host.batch);
    }
    return inputs;
  }
  static std::vector<attn::KeySource> sources_in(const AttendGeometry& host,
                                                 const std::vector<DeviceInput>& inputs) {
    std::vector<attn::KeySource> sources(host.sources.begin(), host.sources.end());
    for (std::size_t i = 0; i < sources.size(); ++i) {
      sources[i].k = inputs[2 * i].get();
      sources[i].v = inputs[2 * i + 1].get();
    }
    return sources;
  }

  std::vector<DeviceInput> inputs_;
  std::vector<attn::KeySource> sources_;
  DeviceBytes list_;
};

/// Runs fn(context) and adds the FLOPs that the kernel counted.
template <typename Fn>
void launch(const AttendGeometry& host, bool backward, const LaunchContext& context, Fn&& fn) {
  const std::int64_t bytes = g_kernel->workspace_bytes(host, backward, 1);
  const DeviceBytes workspace(static_cast<std::size_t>(bytes));
  const std::int64_t zero = 0;
  const DeviceBytes flops = upload(std::span(&zero, 1));
  cudaStream_t stream = nullptr;
  check_cuda(cudaStreamCreate(&stream), "cudaStreamCreate");
  LaunchContext device;
  device.flops = reinterpret_cast<std::int64_t*>(flops.data());
  device.workspace = {workspace.data(), workspace.size()};
  device.stream = stream;
  device.deterministic = g_deterministic;
  fn(device);
  check_cuda(cudaStreamSynchronize(stream), g_kernel->name.data());
  check_cuda(cudaStreamDestroy(stream), "cudaStreamDestroy");
  std::int64_t counted = 0;
  flops.read(reinterpret_cast<std::byte*>(&counted));
  if (context.flops != nullptr) *context.flops += counted;
}

void forward(const attn::ForwardParams& host, const LaunchContext& context) {
  const std::int64_t batch = host.geometry.batch;
  const DeviceGeometry geometry(host.geometry, *g_kernel, lists());
  const DeviceInput q(host.q, batch), k(host.k, batch), v(host.v, batch);
  const bool shared = host.state.data == host.out.data;
  const DeviceOutput out(host.out, batch), lse(host.lse, batch);
  const DeviceOutput state(shared ? attn::Output{} : host.state, batch);
  const DeviceSources sources(host.geometry);
  attn::ForwardParams device = host;
  device.geometry = geometry.geometry();
  sources.put_into(device.geometry);
  device.q = q.get();
  device.k = k.get();
  device.v = v.get();
  device.out = out.get();
  device.lse = lse.get();
  device.state = shared ? out.get() : state.get();
  launch(host.geometry, false, context,
         [&](const LaunchContext& on) { g_kernel->forward(device, on); });
  out.read_back();
  lse.read_back();
  state.read_back();
}

/// As executors do: a launch of larger tiles would be wrong.
void require_tiles_of_backward(const AttendGeometry& host, DType dtype) {
  if (g_kernel->tiles == nullptr) return;
  (void)attn::make_tile_index(
      host.tiles,
      attn::tiles_for(*g_kernel, {dtype, host.head_dim, host.head_dim_v, true, "cuda"}));
}

void backward(const attn::BackwardParams& host, const LaunchContext& context) {
  require_tiles_of_backward(host.geometry, host.q.dtype);
  const std::int64_t batch = host.geometry.batch;
  const DeviceGeometry geometry(host.geometry, *g_kernel, lists());
  const DeviceInput q(host.q, batch), k(host.k, batch), v(host.v, batch), dout(host.dout, batch),
      lse(host.lse, batch), delta(host.delta, batch);
  const DeviceOutput dq(host.dq, batch), dk(host.dk, batch), dv(host.dv, batch);
  const DeviceSources sources(host.geometry);
  attn::BackwardParams device = host;
  device.geometry = geometry.geometry();
  sources.put_into(device.geometry);
  device.q = q.get();
  device.k = k.get();
  device.v = v.get();
  device.dout = dout.get();
  device.lse = lse.get();
  device.delta = delta.get();
  device.dq = dq.get();
  device.dk = dk.get();
  device.dv = dv.get();
  launch(host.geometry, true, context,
         [&](const LaunchContext& on) { g_kernel->backward(device, on); });
  dq.read_back();
  dk.read_back();
  dv.read_back();
}

std::int64_t no_workspace(const AttendGeometry& /*geometry*/, bool /*backward*/, int /*threads*/) {
  return 0;
}

}  // namespace

void check_cuda(cudaError_t status, const char* what) {
  if (status != cudaSuccess) {
    throw DeviceError(std::string(what) + ": " + cudaGetErrorString(status));
  }
}

DeviceBytes::DeviceBytes(std::size_t bytes) : size_(bytes) {
  if (bytes == 0) return;
  void* memory = nullptr;
  check_cuda(cudaMalloc(&memory, bytes), "cudaMalloc");
  data_ = static_cast<std::byte*>(memory);
  check_cuda(cudaMemset(data_, 0xff, bytes), "cudaMemset");
}

DeviceBytes::DeviceBytes(std::span<const std::byte> bytes) : DeviceBytes(bytes.size()) {
  if (bytes.empty()) return;
  check_cuda(cudaMemcpy(data_, bytes.data(), size_, cudaMemcpyHostToDevice), "upload");
}

DeviceBytes::~DeviceBytes() { cudaFree(data_); }

DeviceBytes::DeviceBytes(DeviceBytes&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

void DeviceBytes::read(std::byte* to) const {
  check_cuda(cudaMemcpy(to, data_, size_, cudaMemcpyDeviceToHost), "download");
}

namespace {

/// Single tiles go without, so that both ways are run.
DeviceBytes keep(const Kernel& kernel, AttendGeometry host, const attn::TileIndex& index) {
  host.row_tiles = index.row_tiles;
  return upload(std::span<const std::byte>(kernel.make_kept(host)));
}

}  // namespace

DeviceGeometry::DeviceGeometry(const AttendGeometry& host, const Kernel& kernel, TileLists lists)
    : geometry_(host) {
  const auto to_device = [&]<typename T>(std::span<const T> values) {
    arrays_.push_back(upload(values));
    return std::span<const T>(reinterpret_cast<const T*>(arrays_.back().data()), values.size());
  };
  // Of both passes: either may be what the lists are for.
  const attn::TileLimits forward = attn::tiles_for(kernel, {.head_dim = host.head_dim,
                                                            .head_dim_v = host.head_dim_v,
                                                            .softcap = host.softcap != 0.0,
                                                            .keys = host.sequence_keys});
  attn::TileIndex index = attn::make_tile_index(
      host.tiles, {std::max(kernel.tile_q, forward.rows), std::max(kernel.tile_k, forward.keys)});
  attn::JoinedTiles joined;
  if (lists == TileLists::joined) {
    joined = attn::join_tiles(host.tiles, index);
    index = joined.index;
    geometry_.tiles = joined.tiles;
    if (kernel.make_kept != nullptr) {
      arrays_.push_back(keep(kernel, geometry_, index));
      geometry_.kept = {arrays_.back().data(), arrays_.back().size()};
    }
  }
  const std::vector<std::uint32_t> flags(host.keys.size(), 7);
  const auto device_flags = to_device(std::span<const std::uint32_t>(flags));
  std::vector<attn::KeySegment> keys(host.keys.begin(), host.keys.end());
  for (std::size_t i = 0; i < keys.size(); ++i) {
    if (keys[i].ready == nullptr) keys[i].ready = device_flags.data() + i;
  }
  geometry_.queries = to_device(host.queries);
  geometry_.keys = to_device(std::span<const attn::KeySegment>(keys));
  geometry_.tiles = to_device(geometry_.tiles);
  geometry_.intervals = to_device(host.intervals);
  geometry_.row_tiles = to_device(std::span<const std::int32_t>(index.row_tiles));
  geometry_.tiles_by_key = to_device(std::span<const attn::Tile>(index.tiles_by_key));
  geometry_.key_tiles = to_device(std::span<const std::int32_t>(index.key_tiles));
  geometry_.covered_rows = index.covered_rows;
  geometry_.places = to_device(std::span<const attn::TilePlace>(index.places));
}

const Kernel& on_device(const Kernel& kernel, bool deterministic) {
  static Kernel adapter;
  g_kernel = &kernel;
  g_deterministic = deterministic;
  adapter = kernel;
  adapter.backend = "host";
  adapter.workspace_bytes = no_workspace;
  adapter.forward = forward;
  adapter.backward = backward;
  return adapter;
}

}  // namespace annulus::testing
