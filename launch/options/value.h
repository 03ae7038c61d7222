#pragma once

#include "launch/options/keys.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace annulus::launch {

// Our own readers: Boost's lexical_cast takes a negative number into an unsigned, nan and inf.
// Each returns whether `text` is one, whole, and writes it.

/// Digits with an optional leading minus and an optional suffix k, M or G (powers of two).
bool read_integer(std::string_view text, std::int64_t& value);
/// A finite decimal number.
bool read_real(std::string_view text, double& value);
/// true|false|yes|no|on|off|1|0
bool read_boolean(std::string_view text, bool& value);

/// Parts between `separator`, blanks around them removed.
std::vector<std::string> split(std::string_view text, char separator);
std::string trim(std::string_view text);

/// What `key` accepts, in words: "a whole number from 1 to 4G (k, M, G are powers of two)".
std::string allowed_values(const Key& key);
/// Why `text` is no value of `key`, in words; empty: it is one.
std::string why_not(const Key& key, std::string_view text);

}  // namespace annulus::launch
