#pragma once

#include <string>
#include <string_view>

namespace annulus::launch {

/// `annulus COMMAND --help`: what it does and every key with its default, grouped by section.
std::string command_help(std::string_view command, std::string_view summary);

}  // namespace annulus::launch
