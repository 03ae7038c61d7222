#pragma once

#include <string>

namespace annulus::comm {

std::string host_name();

}  // namespace annulus::comm
