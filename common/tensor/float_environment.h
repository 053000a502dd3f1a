// The floating-point environment in which elements are converted.
#pragma once

#include <cfenv>

namespace refit {

// While it lives, this thread rounds to nearest, keeps subnormal numbers and does not trap. A user's thread may do
// otherwise: torch.set_flush_denormal, a library that was built with -ffast-math, feenableexcept. Conversions must give
// the same bits everywhere and raise no signal. Afterwards everything is as it was, flags included.
class DefaultFloatEnvironment {
 public:
  DefaultFloatEnvironment() {
    std::fegetenv(&before_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~DefaultFloatEnvironment() { std::fesetenv(&before_); }
  DefaultFloatEnvironment(const DefaultFloatEnvironment&) = delete;
  DefaultFloatEnvironment& operator=(const DefaultFloatEnvironment&) = delete;

 private:
  std::fenv_t before_;
};

}  // namespace refit
