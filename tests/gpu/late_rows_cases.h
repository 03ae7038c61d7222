#pragma once

#include "tests/gpu/contract_setting.h"

// Cases of the contract: the backward is launched before its query rows are there.
namespace annulus::testing {

/// Rows and flag of the second query segment come while the backward waits for them; the forward
/// refuses such segments.
void late_rows(const attn::Kernel& kernel, const Setting& setting);
/// The same from GPU 1: its engines copy the rows, its stream writes the flag.
void rows_of_another_gpu(const attn::Kernel& kernel, const Setting& setting);
/// A word in host memory ends waits for rows, and for turns that depend on them.
void abort_of_rows(const attn::Kernel& kernel, const Setting& setting);

}  // namespace annulus::testing
