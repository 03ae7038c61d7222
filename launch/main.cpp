#include "launch/command.h"
#include "launch/error.h"
#include "launch/options/help.h"

#include <annulus/annulus.h>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

namespace annulus::launch {
namespace {

struct Command {
  const char* name;
  const char* summary;
  int (*run)(const Call&);
};

constexpr std::array<Command, 7> kCommands{{
    {"bench", "Runs attention on the ranks that were started; checks it, times it, prices it.",
     run_bench},
    {"attend", "Attention on the caller's own tensors.", run_attend},
    {"route", "A router on the caller's logits.", run_route},
    {"cost", "The analytical accountings alone; no device, no mpirun.", run_cost},
    {"plan", "Prints a plan: FLOPs by rank, bytes, peak memory; for any --world.", run_plan},
    {"mask", "Draws a mask and who owns it.", run_mask},
    {"doctor", "What this machine has, and what is missing; tests itself.", run_doctor},
}};

std::string usage() {
  std::string text = "usage: annulus COMMAND [--config FILE] [--key VALUE ...]\n\n";
  for (const Command& command : kCommands) {
    text += fmt::format("  {:<8} {}\n", command.name, command.summary);
  }
  return text + "\nannulus COMMAND --help lists its keys. annulus --version\n";
}

const Command& find_command(const std::string& name) {
  std::vector<std::string> names;
  for (const Command& command : kCommands) {
    if (name == command.name) return command;
    names.emplace_back(command.name);
  }
  const std::string meant = nearest(name, names);
  throw UsageError(fmt::format("'{}': unknown subcommand; {}", name,
                               meant.empty() ? fmt::format("allowed: {}", fmt::join(names, ", "))
                                             : fmt::format("did you mean {}?", meant)));
}

int run(const std::vector<std::string>& words, const World& started) {
  if (words.empty()) throw UsageError("no subcommand; annulus --help lists them");
  const std::string& first = words.front();
  const bool speaks = started.rank == 0;
  if (first == "--help" || first == "-h" || first == "help" || first == "--version") {
    if (words.size() > 1) throw UsageError(fmt::format("'{}': stray word", words[1]));
    const std::string text = first == "--version" ? "annulus " ANNULUS_VERSION "\n" : usage();
    if (speaks) fmt::print("{}", text);
    return kPassed;
  }
  if (first.starts_with("-")) {
    throw UsageError(fmt::format("{}: an option stands after its subcommand; see --help", first));
  }
  const Command& command = find_command(first);
  Call call;
  call.started = started;
  call.command_line = "annulus";
  for (const std::string& word : words) call.command_line += " " + word;
  call.line = read_options({words.begin() + 1, words.end()}, environ, call.settings);
  if (call.line.help) {
    if (speaks) fmt::print("{}", command_help(command.name, command.summary));
    return kPassed;
  }
  if (call.line.compare && first != "plan") throw UsageError("--compare: belongs to plan");
  return command.run(call);
}

/// Every rank ends with the same code, but only rank 0 speaks. mpirun kills the others as soon as
/// one ends, so those wait for rank 0 to have had its say.
int fail(const World& started, int code, const char* what) {
  if (started.rank == 0) {
    fmt::print(stderr, "annulus: {}\n", what);
    return code;
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  return code;
}

int guarded(const std::vector<std::string>& words) {
  World started;
  try {
    started = detect_world([](const char* name) { return std::getenv(name); });
    return run(words, started);
  } catch (const UsageError& error) {
    return fail(started, kUsage, error.what());
  } catch (const InvalidArgument& error) {
    return fail(started, kUsage, error.what());
  } catch (const Unsupported& error) {
    return fail(started, kUsage, error.what());
  } catch (const std::bad_alloc&) {
    return fail(started, kRuntime, "out of memory; annulus plan shows what each rank needs");
  } catch (const std::exception& error) {
    return fail(started, kRuntime, error.what());
  }
}

}  // namespace
}  // namespace annulus::launch

int main(int argc, char** argv) { return annulus::launch::guarded({argv + 1, argv + argc}); }
