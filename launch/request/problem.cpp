#include "launch/request/problem.h"

#include "launch/options/value.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <numeric>

namespace annulus::launch {
namespace {

constexpr std::int64_t kMostTokens = std::int64_t{1} << 32;

std::int64_t read_length(const std::string& text, const std::string& where) {
  std::int64_t length = 0;
  if (!read_integer(text, length) || length < 0 || length > kMostTokens) {
    throw UsageError(
        fmt::format("{}: '{}' is not allowed; allowed: whole numbers from 0 to 4G", where, text));
  }
  return length;
}

std::vector<std::int64_t> read_lengths_file(const std::filesystem::path& file,
                                            const std::string& where) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(file, error)) {
    throw UsageError(fmt::format("{}: '@{}' is not a regular file", where, file.string()));
  }
  std::ifstream stream(file);
  std::vector<std::int64_t> lengths;
  int number = 0;
  for (std::string text; std::getline(stream, text);) {
    ++number;
    const std::string word = trim(text.substr(0, text.find('#')));
    if (word.empty()) continue;
    lengths.push_back(read_length(word, fmt::format("{}:{}: documents", file.string(), number)));
  }
  if (lengths.empty()) {
    throw UsageError(fmt::format("{}: '@{}' holds no length", where, file.string()));
  }
  return lengths;
}

CausalAlign align_of(const Settings& settings) {
  return settings.text("causal_align") == "top_left" ? CausalAlign::top_left
                                                     : CausalAlign::bottom_right;
}

Mask documents_mask(const Settings& settings, std::int64_t seq, std::int64_t seq_kv) {
  if (!settings.has("documents")) {
    settings.refuse("mask", "needs documents: lengths, or @FILE");
  }
  std::vector<std::int64_t> lengths = document_lengths(settings);
  std::int64_t sum = 0;
  for (const std::int64_t length : lengths) sum += length;
  if (sum != seq || seq_kv != seq) {
    throw UsageError(
        fmt::format("{}: {} lengths sum to {}; allowed: the sum is seq ({}) and seq_kv ({})",
                    settings.where("documents"), lengths.size(), sum, seq, seq_kv));
  }
  return Mask::documents(std::move(lengths), settings.text("document_mask") == "causal");
}

Mask term_of(const std::string& word, const Settings& settings, std::int64_t seq,
             std::int64_t seq_kv) {
  if (word == "causal") return Mask::causal(align_of(settings));
  if (word == "window") {
    if (!settings.has("window_left")) settings.refuse("mask", "needs window_left");
    return Mask::window(settings.integer("window_left"), settings.integer("window_right"),
                        align_of(settings));
  }
  if (word == "documents") return documents_mask(settings, seq, seq_kv);
  if (word == "prefix") {
    if (!settings.has("prefix_length")) settings.refuse("mask", "needs prefix_length");
    return Mask::prefix(settings.integer("prefix_length"), align_of(settings));
  }
  if (word != "full")
    settings.refuse("mask", fmt::format("names {}, which is not built yet; built: "
                                        "full, causal, window, documents, prefix",
                                        word));
  return Mask::full();
}

Mask mask_of(const Settings& settings, std::int64_t seq, std::int64_t seq_kv) {
  const std::vector<std::string> words = settings.words("mask");
  Mask mask = Mask::full();
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (std::count(words.begin(), words.end(), words[i]) > 1) {
      settings.refuse("mask", fmt::format("names {} twice", words[i]));
    }
    mask = mask & term_of(words[i], settings, seq, seq_kv);
  }
  return mask;
}

DType dtype_of(const Settings& settings) {
  const std::string& text = settings.text("dtype");
  if (text == "f16") return DType::f16;
  return text == "bf16" ? DType::bf16 : DType::f32;
}

void check_heads(const Settings& settings, const Problem& problem) {
  const std::int64_t heads_kv = problem.heads_kv.value_or(problem.heads);
  if (problem.heads % heads_kv == 0) return;
  // Blame the one that was typed; where both were, the dependent one.
  const char* blamed = settings.given("heads_kv") ? "heads_kv" : "heads";
  throw UsageError(fmt::format("{}: heads {} is no multiple of heads_kv {}", settings.where(blamed),
                               problem.heads, heads_kv));
}

}  // namespace

std::vector<std::int64_t> document_lengths(const Settings& settings) {
  const std::string& text = settings.text("documents");
  const std::string where = settings.where("documents");
  if (text.starts_with('@')) {
    return read_lengths_file(settings.beside("documents", text.substr(1)), where);
  }
  std::vector<std::int64_t> lengths;
  for (const std::string& word : split(text, ',')) lengths.push_back(read_length(word, where));
  return lengths;
}

Problem problem_of(const Settings& settings) {
  Problem problem{.batch = settings.integer("batch"),
                  .seq = settings.integer("seq"),
                  .seq_kv = settings.maybe_integer("seq_kv"),
                  .heads = settings.integer("heads"),
                  .heads_kv = settings.maybe_integer("heads_kv"),
                  .head_dim = settings.integer("head_dim"),
                  .head_dim_v = settings.maybe_integer("head_dim_v"),
                  .dtype = dtype_of(settings),
                  .mask = Mask::full(),
                  .softcap = settings.text("softcap") == "off" ? 0.0 : settings.real("softcap"),
                  .softmax_scale = {}};
  if (settings.has("softmax_scale")) problem.softmax_scale = settings.real("softmax_scale");
  check_heads(settings, problem);
  problem.mask = mask_of(settings, problem.seq, problem.seq_kv.value_or(problem.seq));
  return resolved(problem);
}

}  // namespace annulus::launch
