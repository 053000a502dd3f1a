// Changes inputs randomly, for builds without libFuzzer.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace refit {

// A random input of `corpus`, which is not empty, changed in one to eight places.
inline std::string Mutate(const std::vector<std::string>& corpus, std::mt19937_64& random) {
  constexpr size_t kMaxBytes = 8192;
  constexpr std::array<uint8_t, 12> kEdges = {0, 1, 2, 0x0f, 0x3f, 0x40, 0x7e, 0x7f, 0x80, 0x81, 0xfe, 0xff};
  const auto below = [&](size_t bound) { return bound == 0 ? 0 : random() % bound; };
  std::string input = corpus[below(corpus.size())];
  for (uint64_t change = 0, changes = 1 + below(8); change < changes; ++change) {
    const size_t at = below(input.size() + 1);
    const size_t length = std::min(input.size() - at, below(below(8) == 0 ? 256 : 8) + 1);
    switch (below(8)) {
      case 0:  // flip a bit
        if (length > 0) input[at] = static_cast<char>(input[at] ^ (1 << below(8)));
        break;
      case 1:  // change a byte
        if (length > 0) input[at] = static_cast<char>(below(2) == 0 ? kEdges[below(kEdges.size())] : random());
        break;
      case 2:  // add or subtract a little
        if (length > 0) input[at] = static_cast<char>(input[at] + (below(2) == 0 ? 1 : -1));
        break;
      case 3:
        input.erase(at, length);
        break;
      case 4:
        input.insert(at, length + 1, static_cast<char>(kEdges[below(kEdges.size())]));
        break;
      case 5:  // repeat a part
        input.insert(below(input.size() + 1), input.substr(at, length));
        break;
      case 6:  // set a run to one byte
        std::fill_n(input.begin() + static_cast<std::ptrdiff_t>(at), length,
                    static_cast<char>(kEdges[below(kEdges.size())]));
        break;
      default: {  // continue like another input
        const std::string& other = corpus[below(corpus.size())];
        input = input.substr(0, at) + other.substr(std::min(other.size(), below(other.size() + 1)));
      }
    }
    input.resize(std::min(input.size(), kMaxBytes));
  }
  return input;
}

}  // namespace refit
