#include "launch/options/sources.h"
#include "launch/options/value.h"

#include <boost/program_options.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace annulus::launch {
namespace {

namespace po = boost::program_options;

std::string dashed(std::string_view name) { return option_of(name).substr(2); }

po::options_description describe_options() {
  po::options_description description;
  auto add = description.add_options();
  for (const Key& key : keys()) {
    auto* value = po::value<std::string>();
    if (key.type == ValueType::boolean) value->implicit_value("true");
    add(dashed(key.name).c_str(), value);
  }
  add("config", po::value<std::string>());
  add("help", po::bool_switch());
  add("compare", po::bool_switch());
  return description;
}

/// The long option that a word begins, with its value cut off: messages repeat what was typed.
std::string as_typed(const std::string& word) { return word.substr(0, word.find('=')); }

[[noreturn]] void refuse_unknown(const std::string& option) {
  std::vector<std::string> known{"--config", "--help", "--compare"};
  for (const Key& key : keys()) known.push_back(option_of(key.name));
  const std::string meant = nearest(option, known);
  throw UsageError(fmt::format(
      "{}: unknown option; {}", option,
      meant.empty() ? "annulus bench --help lists all" : fmt::format("did you mean {}?", meant)));
}

po::parsed_options parse(const std::vector<std::string>& words,
                         const po::options_description& description) {
  // No allow_guessing: an abbreviation changes its meaning when a key is added.
  constexpr int kStyle = po::command_line_style::allow_long |
                         po::command_line_style::long_allow_adjacent |
                         po::command_line_style::long_allow_next;
  try {
    return po::command_line_parser(words).options(description).style(kStyle).run();
  } catch (const po::unknown_option& error) {
    const std::string name = error.get_option_name();
    refuse_unknown(as_typed(name.starts_with("--") ? name : "--" + name));
  } catch (const po::error_with_option_name& error) {
    throw UsageError(fmt::format("{}: needs a value (or has one that it does not take)",
                                 error.get_option_name()));
  } catch (const po::error& error) {
    throw UsageError(fmt::format("command line: {}", error.what()));
  }
}

[[noreturn]] void refuse_stray(const std::string& word) {
  throw UsageError(fmt::format("'{}': stray word; allowed: --key VALUE", word));
}

/// "heads-kv" -> "heads_kv"
std::string key_of(std::string option) {
  std::ranges::replace(option, '-', '_');
  return option;
}

}  // namespace

CommandLine read_command_line(const std::vector<std::string>& words, Settings& settings) {
  CommandLine line;
  std::vector<std::string> spelt = words;
  std::ranges::replace(spelt, std::string("-h"), std::string("--help"));
  std::set<std::string> seen;
  for (const po::option& option : parse(spelt, describe_options()).options) {
    if (option.string_key.empty()) refuse_stray(option.value.empty() ? "" : option.value.front());
    const std::string& name = option.string_key;
    if (!seen.insert(name).second) throw UsageError(fmt::format("--{}: given twice", name));
    // An implicit value is Boost's business until it is stored, and nothing is stored here.
    const std::string value = option.value.empty() ? "true" : option.value.front();
    if (name == "help") {
      line.help = true;
    } else if (name == "compare") {
      line.compare = true;
    } else if (name == "config") {
      line.config = value;
    } else {
      settings.set(
          key_of(name),
          {.text = value, .origin = Origin::command_line, .where = "--" + name, .folder = {}});
    }
  }
  return line;
}

CommandLine read_options(const std::vector<std::string>& words, Environment environment,
                         Settings& settings) {
  const CommandLine line = read_command_line(words, settings);
  if (line.help) return line;
  if (!line.config.empty()) read_config_file(line.config, settings);
  read_environment(environment, settings);
  if (settings.has("model")) read_model(settings.path("model"), settings);
  return line;
}

}  // namespace annulus::launch
