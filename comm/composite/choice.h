#pragma once

#include "comm/communicator.h"

#include <string>
#include <vector>

namespace annulus::comm::composite {

/// Which ranks' GPUs can address each other, and whether NCCL is there. The same on every rank.
class Reach {
 public:
  /// One rank alone.
  Reach() : Reach({{true}}, {""}, {""}) {}
  /// By rank: whom it reaches, why somebody is not reached, why it has no NCCL.
  Reach(std::vector<std::vector<bool>> reaches, std::vector<std::string> why_not,
        std::vector<std::string> nccl_errors);

  /// Collective: every rank brings its own row.
  static Reach gather(Communicator& communicator, const std::vector<bool>& reaches,
                      const std::string& why_not, const std::string& nccl_error);

  int world() const { return static_cast<int>(reaches_.size()); }
  /// Each addresses the other's memory.
  bool between(int a, int b) const;
  /// Of pairs of different ranks.
  bool all() const;
  bool none() const;
  /// "rank 2 is out of rank 0's reach: ..."; empty where all are in reach.
  std::string first_gap() const;
  /// "rank 1: NCCL cannot be opened: ..."; empty where every rank has it.
  std::string nccl_error() const;

 private:
  std::vector<std::vector<bool>> reaches_;
  std::vector<std::string> why_not_;
  std::vector<std::string> nccl_errors_;
};

struct Choice {
  std::string transport;  ///< "peer", "nccl" or "composite"
  std::string reason;
};

/// What `asked` ("auto" or one of them) comes to. Throws Unsupported where it cannot be, on every
/// rank alike.
Choice choose(const std::string& asked, const Reach& reach);

}  // namespace annulus::comm::composite
