#pragma once

#include <set>
#include <vector>

namespace annulus {

/// Kernels of a GPU, by their entry points on the host.
using KernelEntries = std::vector<const void*>;

template <typename... Kernels>
KernelEntries entries_of(Kernels*... kernels) {
  return {reinterpret_cast<const void*>(kernels)...};
}

inline KernelEntries operator+(KernelEntries some, const KernelEntries& more) {
  some.insert(some.end(), more.begin(), more.end());
  return some;
}

/// Loads their code on the current device. CUDA would load it at the first launch, which then waits
/// for all that runs in the context: for ever, if that waits for what this thread, or another one
/// whose calls stand behind the driver's lock, has not enqueued yet. Throws DeviceError.
void load_kernels(const KernelEntries& kernels);

/// The same on one device, which is asked once of each kernel.
class LoadedKernels {
 public:
  void load(const KernelEntries& kernels) {
    KernelEntries fresh;
    for (const void* kernel : kernels) {
      if (!loaded_.contains(kernel)) fresh.push_back(kernel);
    }
    load_kernels(fresh);
    loaded_.insert(fresh.begin(), fresh.end());
  }

 private:
  std::set<const void*> loaded_;
};

}  // namespace annulus
