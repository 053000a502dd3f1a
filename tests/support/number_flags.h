// Flags of tests that can be run for longer, or with other seeds, than in the test suite.
#pragma once

#include <cstdint>
#include <functional>
#include <iostream>
#include <map>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace refit {

// By name, such as "--seed". Each takes a whole number.
using NumberFlags = std::map<std::string, std::function<void(uint64_t)>>;

// Parses the arguments that GoogleTest has left. For an invalid one it prints what was expected, and returns false.
inline bool ReadNumberFlags(int argc, char** argv, const NumberFlags& flags) {
  for (int i = 1; i < argc; i += 2) {
    const auto flag = flags.find(argv[i]);
    uint64_t number = 0;
    if (flag != flags.end() && i + 1 < argc && absl::SimpleAtoi(argv[i + 1], &number)) {
      flag->second(number);
      continue;
    }
    const auto with_number = [](std::string* out, const auto& known) { absl::StrAppend(out, known.first, " N"); };
    std::cerr << argv[0] << ": '" << argv[i] << "': expected " << absl::StrJoin(flags, " or ", with_number) << "\n";
    return false;
  }
  return true;
}

}  // namespace refit
