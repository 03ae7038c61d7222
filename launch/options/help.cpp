#include "launch/options/help.h"

#include "launch/options/keys.h"

#include <fmt/format.h>

#include <iterator>

namespace annulus::launch {
namespace {

std::string_view placeholder(ValueType type) {
  switch (type) {
    case ValueType::integer:
      return "N";
    case ValueType::real:
      return "X";
    case ValueType::boolean:
      return "";
    case ValueType::choice:
    case ValueType::choices:
      return "WORD";
    case ValueType::path:
      return "FILE";
    case ValueType::text:
      return "TEXT";
  }
  return "";
}

std::string describe(const Key& key) {
  std::string text(key.help);
  const bool words = key.type == ValueType::choice || key.type == ValueType::choices;
  if (words) text += fmt::format("{}{}", text.empty() ? "" : ": ", key.allowed);
  const std::string_view preset = key.preset.empty() ? key.note : key.preset;
  return text + fmt::format(" [{}]", preset);
}

}  // namespace

std::string command_help(std::string_view command, std::string_view summary) {
  std::string text =
      fmt::format("usage: annulus {} [--config FILE] [--key VALUE ...]\n{}\n\n", command, summary);
  text +=
      "Keys come from the command line, from --config FILE (INI) and from ANNULUS_<KEY>, in this "
      "order\n"
      "of precedence. Numbers take k, M and G (powers of two). Defaults stand in brackets.\n";
  if (command == "plan") text += "  --compare                  predict every algorithm\n";
  std::string_view section;
  for (const Key& key : keys()) {
    if (key.section != section) {
      section = key.section;
      fmt::format_to(std::back_inserter(text), "\n[{}]\n", section);
    }
    const std::string option = fmt::format("{} {}", option_of(key.name), placeholder(key.type));
    fmt::format_to(std::back_inserter(text), "  {:<25}  {}\n", option, describe(key));
  }
  return text;
}

}  // namespace annulus::launch
