#pragma once

#include <annulus/problem.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace annulus::launch {

/// `mask_file`: a .npy of bool or uint8 [seq, seq_kv], C order; nonzero where query i may see key
/// j. Read in windows, so that no more than a few MiB and the runs of keys are held. Throws
/// UsageError "WHERE: 'FILE' ...".
Mask read_mask_file(const std::filesystem::path& path, const std::string& where, std::int64_t seq,
                    std::int64_t seq_kv);

}  // namespace annulus::launch
