#include "launch/request/problem.h"

#include "launch/options/value.h"
#include "launch/request/mask_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <numeric>

namespace annulus::launch {
namespace {

constexpr std::int64_t kMostTokens = std::int64_t{1} << 32;

/// Numbers that a key holds: separated by commas, or one a line of @FILE, # comments aside.
class NumberList {
 public:
  NumberList(const Settings& settings, const char* key, std::int64_t least)
      : settings_(settings), key_(key), least_(least) {}

  std::vector<std::int64_t> read() const {
    const std::string& text = settings_.text(key_);
    const std::string where = settings_.where(key_);
    if (text.starts_with('@')) return read_file(settings_.beside(key_, text.substr(1)), where);
    std::vector<std::int64_t> numbers;
    for (const std::string& word : split(text, ',')) numbers.push_back(read_number(word, where));
    return numbers;
  }

 private:
  std::int64_t read_number(const std::string& text, const std::string& where) const {
    std::int64_t number = 0;
    if (!read_integer(text, number) || number < least_ || number > kMostTokens) {
      throw UsageError(fmt::format("{}: '{}' is not allowed; allowed: whole numbers from {} to 4G",
                                   where, text, least_));
    }
    return number;
  }

  std::vector<std::int64_t> read_file(const std::filesystem::path& file,
                                      const std::string& where) const {
    std::error_code error;
    if (!std::filesystem::is_regular_file(file, error)) {
      throw UsageError(fmt::format("{}: '@{}' is not a regular file", where, file.string()));
    }
    std::ifstream stream(file);
    std::vector<std::int64_t> numbers;
    int line = 0;
    for (std::string text; std::getline(stream, text);) {
      ++line;
      const std::string word = trim(text.substr(0, text.find('#')));
      if (word.empty()) continue;
      numbers.push_back(read_number(word, fmt::format("{}:{}: {}", file.string(), line, key_)));
    }
    if (numbers.empty()) {
      throw UsageError(fmt::format("{}: '@{}' holds no number", where, file.string()));
    }
    return numbers;
  }

  const Settings& settings_;
  const char* key_;
  std::int64_t least_;
};

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

std::vector<std::int64_t> segment_ids(const Settings& settings, const char* key,
                                      std::int64_t tokens, const char* length_key) {
  std::vector<std::int64_t> ids = NumberList(settings, key, -1).read();
  if (static_cast<std::int64_t>(ids.size()) != tokens) {
    throw UsageError(fmt::format("{}: {} ids; allowed: one a token, {} is {}", settings.where(key),
                                 ids.size(), length_key, tokens));
  }
  return ids;
}

Mask segments_mask(const Settings& settings, std::int64_t seq, std::int64_t seq_kv) {
  if (!settings.has("segments")) {
    settings.refuse("mask", "needs segments: an id a token, or @FILE");
  }
  std::vector<std::int64_t> ids = segment_ids(settings, "segments", seq, "seq");
  if (settings.has("segments_kv")) {
    return Mask::segments(std::move(ids), segment_ids(settings, "segments_kv", seq_kv, "seq_kv"));
  }
  if (seq_kv != seq) {
    settings.refuse("mask",
                    fmt::format("needs segments_kv, since seq_kv {} is not seq {}", seq_kv, seq));
  }
  return Mask::segments(std::move(ids));
}

Mask custom_mask(const Settings& settings, std::int64_t seq, std::int64_t seq_kv) {
  if (!settings.has("mask_file")) {
    settings.refuse("mask", "needs mask_file: a .npy of bool or uint8 [seq, seq_kv]");
  }
  return read_mask_file(settings.path("mask_file"), settings.where("mask_file"), seq, seq_kv);
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
  if (word == "segments") return segments_mask(settings, seq, seq_kv);
  if (word == "custom") return custom_mask(settings, seq, seq_kv);
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
  return NumberList(settings, "documents", 0).read();
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
  return resolved(shrunk(resolved(problem), settings.integer("shrink")));
}

}  // namespace annulus::launch
