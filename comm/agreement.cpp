#include "comm/communicator.h"
#include "comm/wait_text.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <type_traits>

namespace annulus::comm {

namespace {

constexpr std::size_t kLongestExchanged = 64 * 1024;
constexpr std::size_t kLongestShown = 240;
constexpr std::size_t kContextShown = 60;  // before the first difference

struct Digest {
  std::uint64_t length = 0;
  std::uint64_t hash = 0;
  bool operator==(const Digest&) const = default;
};

/// FNV-1a: the same on every rank and host, unlike std::hash.
Digest digest_of(std::string_view text) {
  std::uint64_t hash = 14695981039346656037ULL;
  for (const char c : text) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ULL;
  }
  return {text.size(), hash};
}

template <class T>
std::vector<T> gather_value(Communicator& communicator, const T& mine, std::string_view what) {
  static_assert(std::is_trivially_copyable_v<T>);
  std::vector<T> all(static_cast<std::size_t>(communicator.size()));
  communicator.all_gather(std::as_bytes(std::span(&mine, 1)),
                          std::as_writable_bytes(std::span(all)), what);
  return all;
}

/// Every rank's text, cut to `longest`. Lengths are known from an earlier exchange.
std::vector<std::string> gather_texts(Communicator& communicator, std::string_view mine,
                                      std::span<const std::uint64_t> lengths,
                                      std::string_view what) {
  const std::uint64_t longest =
      std::min<std::uint64_t>(*std::max_element(lengths.begin(), lengths.end()), kLongestExchanged);
  std::vector<char> part(longest, '\0');
  std::copy_n(mine.begin(), std::min<std::size_t>(mine.size(), longest), part.begin());
  std::vector<char> all(longest * lengths.size());
  communicator.all_gather(std::as_bytes(std::span(part)), std::as_writable_bytes(std::span(all)),
                          what);
  std::vector<std::string> texts;
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    texts.emplace_back(all.data() + i * longest, std::min(lengths[i], longest));
  }
  return texts;
}

std::size_t common_prefix(std::span<const std::string> texts) {
  std::size_t length = texts.front().size();
  for (const std::string& text : texts) {
    const auto end =
        std::mismatch(texts.front().begin(), texts.front().end(), text.begin(), text.end());
    length = std::min(length, static_cast<std::size_t>(end.second - text.begin()));
  }
  return length;
}

/// A long text is shown around the place where the ranks begin to differ.
std::string shorten(const std::string& text, const Digest& digest, std::size_t difference) {
  if (text.size() <= kLongestShown && digest.length == text.size()) return "'" + text + "'";
  const std::size_t begin =
      std::min(difference > kContextShown ? difference - kContextShown : 0, text.size());
  return fmt::format("'{}{}...' ({} characters, hash {:016x})", begin > 0 ? "..." : "",
                     text.substr(begin, kLongestShown), digest.length, digest.hash);
}

std::string disagreement_text(std::string_view what, std::span<const std::string> texts,
                              std::span<const Digest> digests) {
  const std::size_t difference = common_prefix(texts);
  std::vector<std::pair<std::string, std::vector<int>>> groups;  // equal values, by lowest rank
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const std::string shown = shorten(texts[i], digests[i], difference);
    auto group = std::find_if(groups.begin(), groups.end(),
                              [&](const auto& entry) { return entry.first == shown; });
    if (group == groups.end()) group = groups.insert(groups.end(), {shown, {}});
    group->second.push_back(static_cast<int>(i));
  }
  std::string text = fmt::format("ranks disagree on {}:", what);
  for (const auto& [shown, ranks] : groups) {
    text += fmt::format("\n  {}: {}", name_ranks(ranks), shown);
  }
  return text;
}

}  // namespace

std::string disagreement(Communicator& communicator, std::string_view what,
                         std::string_view value) {
  const auto digests = gather_value(communicator, digest_of(value), what);
  const bool agree = std::all_of(digests.begin(), digests.end(),
                                 [&](const Digest& other) { return other == digests.front(); });
  if (agree) return {};
  std::vector<std::uint64_t> lengths;
  for (const Digest& digest : digests) lengths.push_back(digest.length);
  const auto texts = gather_texts(communicator, value, lengths, what);
  return disagreement_text(what, texts, digests);
}

void require_agreement(Communicator& communicator, std::string_view what, std::string_view value) {
  const std::string text = disagreement(communicator, what, value);
  if (!text.empty()) throw CommError(text);
}

void require_success(Communicator& communicator, std::string_view what, std::string_view error) {
  const auto lengths = gather_value(communicator, static_cast<std::uint64_t>(error.size()), what);
  std::vector<int> failed;
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    if (lengths[i] > 0) failed.push_back(static_cast<int>(i));
  }
  if (failed.empty()) return;
  const auto texts = gather_texts(communicator, error, lengths, what);
  const int lowest = failed.front();
  std::string text =
      fmt::format("{}: rank {}: {}", what, lowest, texts[static_cast<std::size_t>(lowest)]);
  if (failed.size() > 1) text += fmt::format(" (failed on {})", name_ranks(failed));
  throw InvalidArgument(text);
}

}  // namespace annulus::comm
