#pragma once

/// Every public C++ header.

#include <annulus/attention.h>
#include <annulus/built.h>
#include <annulus/collective.h>
#include <annulus/cost.h>
#include <annulus/counters.h>
#include <annulus/device_memory.h>
#include <annulus/error.h>
#include <annulus/gpu.h>
#include <annulus/key_lists.h>
#include <annulus/latency.h>
#include <annulus/layout.h>
#include <annulus/local_kernel.h>
#include <annulus/log.h>
#include <annulus/machine.h>
#include <annulus/mask_tiles.h>
#include <annulus/mesh.h>
#include <annulus/model_comparison.h>
#include <annulus/model_size.h>
#include <annulus/moe.h>
#include <annulus/moe_experts.h>
#include <annulus/moe_layer.h>
#include <annulus/moe_losses.h>
#include <annulus/moe_placement.h>
#include <annulus/moe_routing.h>
#include <annulus/plan.h>
#include <annulus/problem.h>
#include <annulus/reference.h>
#include <annulus/tensor.h>
#include <annulus/trace.h>
#include <annulus/version.h>
