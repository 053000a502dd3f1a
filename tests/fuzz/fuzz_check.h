// A check that ends the process if it fails, because fuzzers look for that.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <sstream>

namespace refit {

class FuzzFailure {
 public:
  FuzzFailure(const char* file, int line, const char* condition) { text_ << file << ":" << line << ": " << condition; }
  [[noreturn]] ~FuzzFailure() {
    std::fprintf(stderr, "%s\n", text_.str().c_str());
    std::abort();
  }
  template <typename T>
  FuzzFailure& operator<<(const T& value) {
    text_ << " " << value;
    return *this;
  }

 private:
  std::ostringstream text_;
};

}  // namespace refit

// FUZZ_CHECK(condition) << further output;
// The switch keeps an `else` that follows with the `if` that it was written for.
#define FUZZ_CHECK(condition) \
  switch (0)                  \
  case 0:                     \
  default:                    \
    if (condition) {          \
    } else                    \
      ::refit::FuzzFailure(__FILE__, __LINE__, #condition)
