#pragma once

#include "launch/error.h"
#include "launch/options/settings.h"

#include <annulus/mesh.h>

#include <string>
#include <utility>

namespace annulus::launch {

/// Every rank throws UsageError with rank 0's text, unless that is empty. Collective.
void refuse_together(Mesh& mesh, const std::string& text_of_rank_zero);

/// Every rank throws UsageError that names the first key whose values differ and both values, but
/// for those that a rank may have to itself (threads, reports). Collective.
void require_same_settings(Mesh& mesh, const Settings& settings);

/// Only rank 0 does `work`; what it refuses ends every rank alike. Collective.
template <typename Work>
void on_rank_zero(Mesh& mesh, Work&& work) {
  std::string error;
  if (mesh.rank() == 0) {
    try {
      std::forward<Work>(work)();
    } catch (const UsageError& refused) {
      error = refused.what();
      if (error.empty()) error = "refused";
    }
  }
  refuse_together(mesh, error);
}

}  // namespace annulus::launch
