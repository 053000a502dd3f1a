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

// FUZZ_CHECK(condition) << further output; a statement of its own, within braces after an `if`.
#define FUZZ_CHECK(condition) \
  if (condition) {            \
  } else                      \
    ::refit::FuzzFailure(__FILE__, __LINE__, #condition)
