#include "comm/peer/stream_ops.h"

#include "runtime/base/cuda_check.h"

#include <utility>

namespace annulus::comm::peer {

void StreamBatch::write(std::uint32_t* word, std::uint32_t value) {
  const auto address = reinterpret_cast<CUdeviceptr>(word);
  if (count_ > 0 && ops_[count_ - 1].operation == CU_STREAM_MEM_OP_WRITE_VALUE_32 &&
      ops_[count_ - 1].writeValue.address == address) {
    ops_[count_ - 1].writeValue.value = value;
    return;
  }
  CUstreamBatchMemOpParams& op = next();
  op.writeValue.operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
  op.writeValue.address = address;
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
