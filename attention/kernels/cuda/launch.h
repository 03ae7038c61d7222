#pragma once

#include "attention/kernels/dispatch.h"
#include "attention/kernels/params.h"

// Entry points of this back end, one a kernel and pass, each on context.stream.
namespace annulus::attn::cuda {

/// Throws DeviceError when the last launch failed. Launch errors only: the device is not awaited.
void check_launch(const char* kernel);

/// Throws InvalidArgument where the workspace is smaller than `bytes`, the tile index that a pass
/// needs is missing, or a forward is to wait for rows.
void check_arguments(const AttendGeometry& geometry, const LaunchContext& context, bool backward,
                     std::int64_t bytes);

/// Allows dynamic shared memory beyond 48 KB, on the current device. Throws DeviceError.
void allow_shared_memory(const void* kernel, int bytes);

/// The FLOP counter to 0, where the launch says so.
void begin_flops(const LaunchContext& context);

/// out, lse, state of rows that no tile names. The kernels write all others. `tile_rows`: the most
/// rows of a query tile.
void fill_unvisited_rows(const ForwardParams& params, const LaunchContext& context,
                         int tile_rows = 128);
/// Are dk and dv rounded? Throws InvalidArgument where they are and the launch does not assign
/// them, or where they are neither f32 nor of the dtype of q.
bool rounds_dkv(const BackwardParams& params);
/// What a kernel does with dk and dv: adds to all of them, or assigns those of its key tiles where
/// the launch says so.
enum class KeyGradients { kernel_adds, kernel_assigns };
/// Zero in dq, dk and dv where they are to be assigned and the kernel does not do it. Also the
/// zeroes of `turns` ints at the start of the workspace.
void clear_gradients(const BackwardParams& params, const LaunchContext& context, std::int64_t turns,
                     KeyGradients keys = KeyGradients::kernel_adds);
/// One counter for each query tile and half of it, of every head.
std::int64_t turn_count(const AttendGeometry& geometry);

/// Of tiles of at most `tile_rows` rows, a multiple of 4.
void plain_forward(const ForwardParams& params, const LaunchContext& context, int tile_rows = 128);
void plain_backward(const BackwardParams& params, const LaunchContext& context);
void flash1_forward(const ForwardParams& params, const LaunchContext& context);
void naive_forward(const ForwardParams& params, const LaunchContext& context);
void naive_backward(const BackwardParams& params, const LaunchContext& context);
void reference_forward(const ForwardParams& params, const LaunchContext& context);
void reference_backward(const BackwardParams& params, const LaunchContext& context);

// What they may launch.
KernelEntries fill_entries();   ///< fill_unvisited_rows
KernelEntries clear_entries();  ///< clear_gradients
KernelEntries plain_forward_entries();
KernelEntries plain_backward_entries();
KernelEntries flash1_forward_entries();
KernelEntries naive_forward_entries();
KernelEntries naive_backward_entries();
KernelEntries reference_entries();
KernelEntries flash2_entries(const KernelQuery& query);

/// flash2: tensor cores where a variant is built and the operands allow it, else plain.
void flash2_forward(const ForwardParams& params, const LaunchContext& context);
void flash2_backward(const BackwardParams& params, const LaunchContext& context);
/// Kernel::rounds_dkv
bool flash2_rounds_dkv(const KernelQuery& query);

}  // namespace annulus::attn::cuda
