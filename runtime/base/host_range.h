#pragma once

#include <string>

namespace annulus {

/// A name that a profiler knows; null where none listens.
using RangeName = void*;

/// A profiler (Nsight Systems) takes NVTX ranges of this process; false where NVTX is not built.
/// Asked where names are made, so that nobody makes names for nobody.
bool profiler_listens();
RangeName range_name(const std::string& text);

namespace detail {
void push_range(RangeName name) noexcept;
void pop_range() noexcept;
}  // namespace detail

/// What this thread of the host does while it lives, as the profiler shows it. With no name, which
/// is to say without a profiler, a comparison with null.
class HostRange {
 public:
  explicit HostRange(RangeName name) noexcept : name_(name) {
    if (name_ != nullptr) detail::push_range(name_);
  }
  HostRange(const HostRange&) = delete;
  HostRange& operator=(const HostRange&) = delete;
  ~HostRange() {
    if (name_ != nullptr) detail::pop_range();
  }

 private:
  RangeName name_;
};

}  // namespace annulus
