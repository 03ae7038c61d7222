#include "comm/peer/stream_ops.h"

#include "runtime/base/cuda_check.h"

#include <annulus/error.h>

#include <utility>

namespace annulus::comm::peer {

void StreamBatch::write(std::uint32_t* word, std::uint32_t value) {
  CUstreamBatchMemOpParams& op = next();
  op.writeValue.operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
  op.writeValue.address = reinterpret_cast<CUdeviceptr>(word);
  op.writeValue.value = value;
  op.writeValue.flags = CU_STREAM_WRITE_VALUE_DEFAULT;
}

void StreamBatch::await(std::uint32_t* word, std::uint32_t value) {
  CUstreamBatchMemOpParams& op = next();
  op.waitValue.operation = CU_STREAM_MEM_OP_WAIT_VALUE_32;
  op.waitValue.address = reinterpret_cast<CUdeviceptr>(word);
  op.waitValue.value = value;
  op.waitValue.flags = CU_STREAM_WAIT_VALUE_GEQ;
}

void StreamBatch::consume(std::uint32_t* signal, std::uint32_t value) {
  await(signal, value);
  write(signal, 0);
}

CUstreamBatchMemOpParams& StreamBatch::next() {
  if (count_ == kMost) enqueue();
  ops_[count_] = {};
  return ops_[count_++];
}

void StreamBatch::enqueue() {
  const auto count = static_cast<unsigned>(std::exchange(count_, 0));
  if (count == 0) return;
  check_driver(driver_.batch(stream_, count, ops_.data(), 0), "cuStreamBatchMemOp");
}

void StreamBatch::turn_to(cudaStream_t stream) {
  if (stream != stream_) enqueue();
  stream_ = stream;
}

namespace {

/// Heads side by side on both ends: part of the run.
Region with_dense_heads(const Region& r) {
  Region joined = r;
  joined.run = r.run * r.count[2];
  joined.count[2] = 1;
  return joined;
}

bool heads_are_dense(const Region& r) { return r.count[2] == 1 || r.stride[2] == r.run; }
bool rows_are_dense(const Region& r) { return r.count[1] == 1 || r.stride[1] == r.run; }

}  // namespace

std::vector<Plane> planes(const Region& source, const Region& target) {
  std::vector<Plane> all;
  if (source.bytes() == 0) return all;
  if (source.count != target.count || source.run != target.run) {
    throw InvalidArgument("peer transport: both ends of a transfer must have the same shape");
  }
  const bool dense = heads_are_dense(source) && heads_are_dense(target);
  const Region from = dense ? with_dense_heads(source) : source;
  const Region to = dense ? with_dense_heads(target) : target;
  const bool whole = rows_are_dense(from) && rows_are_dense(to);
  for (std::int64_t b = 0; b < from.count[0]; ++b) {
    for (std::int64_t h = 0; h < from.count[2]; ++h) {
      Plane plane;
      plane.to = to.base + b * to.stride[0] + h * to.stride[2];
      plane.from = from.base + b * from.stride[0] + h * from.stride[2];
      plane.to_pitch = to.stride[1];
      plane.from_pitch = from.stride[1];
      plane.run = whole ? from.run * from.count[1] : from.run;
      plane.rows = whole ? 1 : from.count[1];
      all.push_back(plane);
    }
  }
  return all;
}

void copy(cudaStream_t stream, const Plane& p) {
  const auto run = static_cast<std::size_t>(p.run);
  if (p.rows == 1) {
    check_cuda(cudaMemcpyAsync(p.to, p.from, run, cudaMemcpyDeviceToDevice, stream),
               "cudaMemcpyAsync");
    return;
  }
  check_cuda(cudaMemcpy2DAsync(p.to, static_cast<std::size_t>(p.to_pitch), p.from,
                               static_cast<std::size_t>(p.from_pitch), run,
                               static_cast<std::size_t>(p.rows), cudaMemcpyDeviceToDevice, stream),
             "cudaMemcpy2DAsync");
}

}  // namespace annulus::comm::peer
