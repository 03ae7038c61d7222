#pragma once

#include "moe/kernels/dispatch.h"

namespace annulus::moe::cpu {

const Kernel& kernel();

void multiply(std::span<const Product> products, const LaunchContext& context);
std::int64_t workspace_bytes(int threads);

void activate(const ActivateParams& params, const LaunchContext& context);
void activate_backward(const ActivateParams& params, const LaunchContext& context);

void sum(const SumParams& params, const LaunchContext& context);
void copy(const CopyParams& params, const LaunchContext& context);

}  // namespace annulus::moe::cpu
