#include "comm/peer/mapped_memory.h"

#include <algorithm>

namespace annulus::comm::peer {

MappedMemory::MappedMemory(const Driver& driver, int device, std::int64_t bytes,
                           const std::vector<int>& devices)
    : driver_(driver) {
  CUmemAllocationProp where{};
  where.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  where.location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device};
  std::size_t step = 0;
  check_driver(driver_.granularity(&step, &where, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED),
               "cuMemGetAllocationGranularity");
  size_ = (static_cast<std::size_t>(std::max<std::int64_t>(bytes, 1)) + step - 1) / step * step;
  check_driver(driver_.create(&handle_, size_, &where, 0), "cuMemCreate");
  try {
    check_driver(driver_.reserve(&address_, size_, 0, 0, 0), "cuMemAddressReserve");
    check_driver(driver_.map(address_, size_, 0, handle_, 0), "cuMemMap");
    std::vector<CUmemAccessDesc> access;
    for (const int d : devices) {
      CUmemAccessDesc one{};
      one.location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = d};
      one.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
      access.push_back(one);
    }
    check_driver(driver_.set_access(address_, size_, access.data(), access.size()),
                 "cuMemSetAccess");
  } catch (...) {
    (void)driver_.release(
        handle_);  // the address range stays reserved: nothing is lost but numbers
    throw;
  }
}

MappedMemory::~MappedMemory() {
  if (address_ == 0) return;
  (void)driver_.unmap(address_, size_);
  (void)driver_.unreserve(address_, size_);
  (void)driver_.release(handle_);
}

}  // namespace annulus::comm::peer
