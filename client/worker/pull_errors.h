// Makes the error messages of one pull.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"

namespace refit {

class PullErrors {
 public:
  // `context` begins each message: "pull of default/3 from 127.0.0.1:50051".
  explicit PullErrors(std::string context) : context_(std::move(context)) {}

  const std::string& context() const { return context_; }
  // The pull goes on at another service.
  void SetContext(std::string context) { context_ = std::move(context); }

  absl::Status Breach(absl::string_view what) const {
    return absl::InternalError(absl::StrCat(context_, ": the service broke the protocol: ", what));
  }

  absl::Status Mismatch(absl::string_view what, uint64_t expected, uint64_t got) const {
    return absl::DataLossError(
        absl::StrFormat("%s: %s: its digest is %016x, the bytes received have %016x", context_, what, expected, got));
  }

 private:
  std::string context_;
};

}  // namespace refit
