#include "moe/kernels/cuda/blas.h"

#include "moe/kernels/cuda/library.h"
#include "moe/kernels/cuda/pointers.h"
#include "moe/kernels/sm90/grouped.h"
#include "runtime/base/cuda_check.h"

#include <algorithm>

namespace annulus::moe::cuda {
namespace {

constexpr std::int64_t kWorkspace = std::int64_t{32} << 20;  // what cuBLAS wants on Hopper
constexpr std::int64_t kMostGroups = 1024;

cudaDataType type_of(DType dtype) {
  if (dtype == DType::bf16) return CUDA_R_16BF;
  return dtype == DType::f16 ? CUDA_R_16F : CUDA_R_32F;
}

cublasOperation_t operation(bool turned) { return turned ? CUBLAS_OP_T : CUBLAS_OP_N; }

void call(cublasHandle_t handle, const GemmWork& work, const Gemm& g) {
  const float alpha = 1.0F;
  check(Library::get().gemm(handle, operation(g.turn_a), operation(g.turn_b), static_cast<int>(g.m),
                            static_cast<int>(g.n), static_cast<int>(g.k), &alpha, g.a,
                            type_of(work.in), static_cast<int>(g.lda), g.b, type_of(work.in),
                            static_cast<int>(g.ldb), &g.beta, g.c, type_of(work.out),
                            static_cast<int>(g.ldc), CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
        "product of experts");
}

/// Arrays of a grouped call: a group a work.
struct Groups {
  explicit Groups(std::span<const GemmWork> works) {
    for (const GemmWork& work : works) {
      const Gemm& g = work.calls[0];
      turn_a.push_back(operation(g.turn_a));
      turn_b.push_back(operation(g.turn_b));
      m.push_back(static_cast<int>(g.m));
      n.push_back(static_cast<int>(g.n));
      k.push_back(static_cast<int>(g.k));
      lda.push_back(static_cast<int>(g.lda));
      ldb.push_back(static_cast<int>(g.ldb));
      ldc.push_back(static_cast<int>(g.ldc));
      beta.push_back(g.beta);
    }
    alpha.assign(works.size(), 1.0F);
    size.assign(works.size(), 1);
  }
  std::vector<cublasOperation_t> turn_a, turn_b;
  std::vector<int> m, n, k, lda, ldb, ldc, size;
  std::vector<float> alpha, beta;
};

/// a, b and c of all works, each kind together.
void write_table(std::span<const GemmWork> works, const void** table, cudaStream_t stream) {
  std::vector<const void*> all;
  for (const GemmWork& work : works) all.push_back(work.calls[0].a);
  for (const GemmWork& work : works) all.push_back(work.calls[0].b);
  for (const GemmWork& work : works) all.push_back(work.calls[0].c);
  for (std::size_t at = 0; at < all.size(); at += PointerBatch::kMost) {
    PointerBatch batch;
    batch.count = static_cast<int>(std::min<std::size_t>(PointerBatch::kMost, all.size() - at));
    std::copy_n(all.begin() + static_cast<std::ptrdiff_t>(at), batch.count, batch.values);
    write_pointers(table + at, batch, stream);
  }
}

/// cuBLAS groups take one type throughout.
bool may_group(std::span<const GemmWork> works) {
  if (works.size() < 2 || static_cast<std::int64_t>(works.size()) > kMostGroups) return false;
  return std::ranges::all_of(works, [&](const GemmWork& work) {
    return work.count == 1 && work.out == work.in && work.in == works.front().in;
  });
}

/// Sums in f32 of operands that are not: their tails are longest where experts are uneven.
bool has_weight_gradients(std::span<const GemmWork> works) {
  return std::ranges::any_of(works, [](const GemmWork& work) { return work.out != work.in; });
}

}  // namespace

struct Blas::Lane {
  Lane() : workspace(kWorkspace) { check(Library::get().create(&handle), "cublasCreate"); }
  ~Lane() { (void)Library::get().destroy(handle); }

  cublasHandle_t handle = nullptr;
  DeviceBuffer workspace;
  CudaStream stream;
  CudaEvent done;
};

Blas::Blas(int lanes, BlasWay way)
    : way_(way), ready_(make_event()), pointers_(3 * kMostGroups * sizeof(void*)) {
  for (int i = 0; i < std::max(1, lanes); ++i) {
    lanes_.push_back(std::make_unique<Lane>());
    if (i == 0) continue;
    Lane& lane = *lanes_.back();
    lane.stream = make_stream();
    lane.done = make_event();
    set_stream(lane, lane.stream.get());
  }
}

Blas::~Blas() = default;

void Blas::set_stream(Lane& lane, cudaStream_t stream) {
  check(Library::get().set_stream(lane.handle, stream), "cublasSetStream");
  // Setting a stream takes the workspace away. One of our own makes results repeatable.
  check(Library::get().set_workspace(lane.handle, lane.workspace.data(), kWorkspace),
        "cublasSetWorkspace");
}

void Blas::run(std::span<const GemmWork> works, cudaStream_t stream) {
  if (works.empty()) return;
  if (way_ == BlasWay::own && run_own(works, stream)) return;
  set_stream(*lanes_.front(), stream);
  if (way_ == BlasWay::grouped && run_grouped(works, stream)) return;
  run_lanes(works, stream);
}

void Blas::run_work(Lane& lane, const GemmWork& work, cudaStream_t stream) {
  if (work.count == 0) {
    const Gemm& g = work.calls[0];
    const auto element = static_cast<std::size_t>(size_of(work.out));
    check_cuda(cudaMemset2DAsync(g.c, static_cast<std::size_t>(g.ldc) * element, 0,
                                 static_cast<std::size_t>(g.m) * element,
                                 static_cast<std::size_t>(g.n), stream),
               "zeroes of an empty expert");
  }
  for (int i = 0; i < work.count; ++i) call(lane.handle, work, work.calls[i]);
}

void Blas::run_lanes(std::span<const GemmWork> works, cudaStream_t stream) {
  std::size_t most = lanes_.size();
  const bool best = way_ == BlasWay::best || way_ == BlasWay::own;
  if (best && !has_weight_gradients(works)) most = 1;
  const int count = static_cast<int>(std::min(works.size(), most));
  const std::vector<int> lane_of = deal(works, count);
  if (count > 1) check_cuda(cudaEventRecord(ready_.get(), stream), "cudaEventRecord");
  for (int i = 1; i < count; ++i) {
    const Lane& lane = *lanes_[static_cast<std::size_t>(i)];
    check_cuda(cudaStreamWaitEvent(lane.stream.get(), ready_.get()), "cudaStreamWaitEvent");
  }
  for (std::size_t w = 0; w < works.size(); ++w) {
    Lane& lane = *lanes_[static_cast<std::size_t>(lane_of[w])];
    run_work(lane, works[w], lane_of[w] == 0 ? stream : lane.stream.get());
  }
  for (int i = 1; i < count; ++i) {
    const Lane& lane = *lanes_[static_cast<std::size_t>(i)];
    check_cuda(cudaEventRecord(lane.done.get(), lane.stream.get()), "cudaEventRecord");
    check_cuda(cudaStreamWaitEvent(stream, lane.done.get()), "cudaStreamWaitEvent");
  }
}

bool Blas::run_own(std::span<const GemmWork> works, cudaStream_t stream) {
  const auto call = sm90::grouped_of(works);
  if (!call.has_value() || !sm90::has_grouped()) return false;
  sm90::launch_grouped(*call, sm90::kTunings[0], sm90::kBand, stream);
  return true;
}

bool Blas::run_grouped(std::span<const GemmWork> works, cudaStream_t stream) {
  const Library& l = Library::get();
  if (l.grouped_gemm == nullptr || !may_group(works)) return false;
  const Groups g(works);
  const auto n = static_cast<std::ptrdiff_t>(works.size());
  auto* table = reinterpret_cast<const void**>(pointers_.data());
  write_table(works, table, stream);
  const cudaDataType type = type_of(works.front().in);
  const cublasStatus_t status =
      l.grouped_gemm(lanes_.front()->handle, g.turn_a.data(), g.turn_b.data(), g.m.data(),
                     g.n.data(), g.k.data(), g.alpha.data(), table, type, g.lda.data(), table + n,
                     type, g.ldb.data(), g.beta.data(), const_cast<void* const*>(table + 2 * n),
                     type, g.ldc.data(), static_cast<int>(n), g.size.data(), CUBLAS_COMPUTE_32F);
  if (status == CUBLAS_STATUS_NOT_SUPPORTED) return false;
  check(status, "grouped product of experts");
  return true;
}

}  // namespace annulus::moe::cuda
