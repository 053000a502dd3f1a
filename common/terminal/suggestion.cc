#include "common/terminal/suggestion.h"

#include <algorithm>

namespace refit {
namespace {

// The number of typing errors between `a` and `b`: the edit distance with swaps.
size_t Slips(absl::string_view a, absl::string_view b) {
  std::vector<std::vector<size_t>> slips(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) {
    for (size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        slips[i][j] = i + j;
        continue;
      }
      const size_t replaced = slips[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      slips[i][j] = std::min({slips[i - 1][j] + 1, slips[i][j - 1] + 1, replaced});
      const bool exchanged = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (exchanged) slips[i][j] = std::min(slips[i][j], slips[i - 2][j - 2] + 1);
    }
  }
  return slips[a.size()][b.size()];
}

}  // namespace

std::string Meant(absl::string_view word, const std::vector<std::string>& candidates) {
  constexpr size_t kLongestWord = 64;
  if (word.size() > kLongestWord) return "";
  // With two errors, a short word could be any word.
  size_t fewest = word.size() < 4 ? 2 : 3;
  std::string meant;
  for (const std::string& candidate : candidates) {
    const size_t slips = Slips(word, candidate);
    if (slips >= fewest) continue;
    fewest = slips;
    meant = candidate;
  }
  return meant;
}

}  // namespace refit
