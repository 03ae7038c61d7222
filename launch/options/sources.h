#pragma once

#include "launch/options/settings.h"

#include <filesystem>
#include <string>
#include <vector>

namespace annulus::launch {

/// A NULL-terminated list of NAME=VALUE, as `environ` is.
using Environment = const char* const*;

/// What stands on the command line beside the keys.
struct CommandLine {
  bool help = false;
  bool compare = false;  ///< plan: predict every algorithm
  std::string config;    ///< empty: none
};

/// Reads the words after the subcommand. Keys go to `settings`. Throws UsageError for an unknown or
/// abbreviated option, a stray word, one given twice.
CommandLine read_command_line(const std::vector<std::string>& words, Settings& settings);

/// Reads an INI file: `[section]`, `key = value`, `#` comments. Throws UsageError naming FILE:LINE
/// for anything else, for a repeated key, and for what is no regular file or holds no key.
void read_config_file(const std::filesystem::path& file, Settings& settings);

/// Reads every ANNULUS_<OPTION>. Throws UsageError for one that names no key: a misspelt variable
/// that is passed over would be a wrong run.
void read_environment(Environment environment, Settings& settings);

/// All of them, in their order of precedence, and then the model file that fills the shape.
CommandLine read_options(const std::vector<std::string>& words, Environment environment,
                         Settings& settings);

/// Fills the shape keys that nobody gave from a Hugging Face config.json. Throws UsageError.
void read_model(const std::filesystem::path& file, Settings& settings);

}  // namespace annulus::launch
