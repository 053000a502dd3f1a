// Patterns and names from strangers: a pattern, a newline-free NUL, the text.
#include <algorithm>
#include <string>

#include "common/adapters/python_regex.h"
#include "tests/fuzz/fuzz_check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string input(reinterpret_cast<const char*>(data), size);
  const size_t end = std::min(input.find('\0'), input.size());
  const std::string pattern = input.substr(0, end);
  const std::string text = end < input.size() ? input.substr(end + 1) : "";

  const auto regex = refit::PythonRegex::Compile(pattern);
  if (!regex.ok()) {
    const absl::StatusCode code = regex.status().code();
    FUZZ_CHECK(code == absl::StatusCode::kInvalidArgument || code == absl::StatusCode::kResourceExhausted)
        << regex.status().ToString();
    FUZZ_CHECK(!regex.status().message().empty());
    return 0;
  }
  FUZZ_CHECK((*regex)->pattern() == pattern);
  const bool match = (*regex)->Match(text);
  const bool search = (*regex)->Search(text);
  FUZZ_CHECK(search || !match) << pattern;
  FUZZ_CHECK((*regex)->Match(text) == match) << pattern;
  return 0;
}
