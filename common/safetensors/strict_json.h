// Reads untrusted JSON event by event. So a document's depth and size cannot cost more memory than the reader allows,
// and repeated keys are detected. Private to common/safetensors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "refit/tensor_spec.h"

namespace refit {

// A name or key in a form that is safe for messages.
inline std::string Quoted(absl::string_view name) { return absl::StrCat("\"", Printable(name), "\""); }

// A reader that rejects every value except those that a derived class accepts.
class StrictJsonReader : public nlohmann::json::json_sax_t {
 public:
  absl::Status Read(absl::string_view text) {
    // The parser takes a NUL for the end, and would ignore what follows it.
    if (const size_t nul = text.find('\0'); nul != absl::string_view::npos) {
      Fail(absl::StrCat("is no valid JSON: it has a NUL at byte ", nul));
      return status_;
    }
    if (!nlohmann::json::sax_parse(text.begin(), text.end(), this) && status_.ok()) {
      Fail("is no valid JSON");
    }
    return status_;
  }

  bool null() override { return Unexpected("null"); }
  bool boolean(bool) override { return Unexpected("a boolean"); }
  bool number_integer(number_integer_t value) override { return Unexpected(absl::StrCat(value)); }
  bool number_unsigned(number_unsigned_t value) override { return Unexpected(absl::StrCat(value)); }
  bool number_float(number_float_t, const string_t& text) override {
    return Unexpected(absl::StrCat("the number ", Printable(text)));
  }
  bool string(string_t& value) override { return Unexpected(absl::StrCat("\"", Printable(value), "\"")); }
  bool binary(binary_t&) override { return Unexpected("binary data"); }
  bool start_object(size_t) override { return Unexpected("an object"); }
  bool start_array(size_t) override { return Unexpected("an array"); }
  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception& error) override {
    return Fail(absl::StrCat("is no valid JSON at byte ", position, ": ", Printable(error.what())));
  }

 protected:
  // Fails, with what was expected instead of `came`.
  virtual bool Unexpected(absl::string_view came) = 0;

  // Ends reading with an error.
  bool Fail(absl::string_view message) {
    status_ = absl::InvalidArgumentError(message);
    return false;
  }

 private:
  absl::Status status_;
};

}  // namespace refit
