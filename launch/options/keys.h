#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace annulus::launch {

enum class ValueType : std::uint8_t {
  integer,  ///< whole, with k, M, G as powers of two, in [min, max]
  real,     ///< finite and > 0; also what `allowed` lists
  boolean,
  choice,   ///< one of `allowed`
  choices,  ///< several of `allowed`, joined by +
  path,
  text  ///< checked where it is used
};

/// One configuration key: the only place that knows its type, default and bounds. Command line,
/// files, environment and help are all derived from it.
struct Key {
  std::string_view section;
  std::string_view name;
  ValueType type = ValueType::text;
  std::string_view preset;   ///< default value; empty: none
  std::string_view note;     ///< what help shows as default where `preset` is empty
  std::string_view allowed;  ///< "a|b|c"
  std::int64_t min = 0;
  std::int64_t max = 0;
  std::string_view help;
};

/// Every key, grouped by section in the order of help.
std::span<const Key> keys();
/// Null where there is none.
const Key* find_key(std::string_view name);
bool is_section(std::string_view name);

/// "heads_kv" -> "--heads-kv"
std::string option_of(std::string_view name);
/// "heads_kv" -> "ANNULUS_HEADS_KV"
std::string variable_of(std::string_view name);

/// The candidate that `word` was probably meant to be; empty: none is near.
std::string nearest(std::string_view word, std::span<const std::string> candidates);

}  // namespace annulus::launch
