#include "common/adapters/size_expression.h"

#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/numeric/int128.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "refit/shape.h"

namespace refit {
namespace {

constexpr absl::int128 kLargest = INT64_MAX;

absl::Status Malformed(absl::string_view expression) {
  return absl::InvalidArgumentError(
      absl::StrCat("'", expression, "' is no size; expected such as 'd1', 'd2/2' or 'd0*d1'"));
}

// Calls `visit` with each factor, and with whether it divides.
absl::Status ForEachFactor(absl::string_view expression,
                           absl::FunctionRef<absl::Status(absl::string_view factor, bool divides)> visit) {
  absl::string_view rest = expression;
  bool divides = false;
  while (true) {
    const size_t end = rest.find_first_of("*/");
    const absl::string_view factor = absl::StripAsciiWhitespace(rest.substr(0, end));
    if (factor.empty()) return Malformed(expression);
    if (absl::Status status = visit(factor, divides); !status.ok()) return status;
    if (end == absl::string_view::npos) return absl::OkStatus();
    divides = rest[end] == '/';
    rest.remove_prefix(end + 1);
  }
}

}  // namespace

absl::Status CheckSizeExpression(absl::string_view expression) {
  return ForEachFactor(expression, [&](absl::string_view factor, bool divides) -> absl::Status {
    int64_t value = 0;
    absl::ConsumePrefix(&factor, "d");
    if (!absl::SimpleAtoi(factor, &value) || value < 0 || (divides && value == 0)) return Malformed(expression);
    return absl::OkStatus();
  });
}

absl::StatusOr<int64_t> EvaluateSize(absl::string_view expression, absl::Span<const int64_t> shape) {
  absl::int128 result = 1;
  absl::Status status = ForEachFactor(expression, [&](absl::string_view factor, bool divides) -> absl::Status {
    const bool is_dimension = absl::ConsumePrefix(&factor, "d");
    int64_t value = 0;
    if (!absl::SimpleAtoi(factor, &value) || value < 0) return Malformed(expression);
    if (is_dimension) {
      if (static_cast<size_t>(value) >= shape.size()) {
        return absl::InvalidArgumentError(
            absl::StrCat("shape ", ToString(shape), " has no dimension ", value, ", which '", expression, "' needs"));
      }
      value = shape[static_cast<size_t>(value)];
    }
    if (!divides) {
      result *= value;
      if (result > kLargest) return absl::InvalidArgumentError(absl::StrCat("'", expression, "' is too large"));
      return absl::OkStatus();
    }
    if (value == 0 || result % value != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("shape ", ToString(shape), " does not divide as '", expression, "' says"));
    }
    result /= value;
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  return static_cast<int64_t>(result);
}

std::optional<std::pair<size_t, int64_t>> SolveSize(absl::string_view expression, int64_t result,
                                                    absl::Span<const std::optional<int64_t>> dimensions) {
  std::optional<size_t> open;
  const absl::Status status = ForEachFactor(expression, [&](absl::string_view factor, bool divides) -> absl::Status {
    const bool is_dimension = absl::ConsumePrefix(&factor, "d");
    int64_t value = 0;
    if (divides || !absl::SimpleAtoi(factor, &value) || value < 0) return Malformed(expression);
    if (is_dimension) {
      const auto index = static_cast<size_t>(value);
      if (index >= dimensions.size()) return Malformed(expression);
      if (!dimensions[index].has_value()) {
        if (open.has_value()) return Malformed(expression);
        open = index;
        return absl::OkStatus();
      }
      value = *dimensions[index];
    }
    if (value == 0 || result % value != 0) return Malformed(expression);
    result /= value;
    return absl::OkStatus();
  });
  if (!status.ok() || !open.has_value()) return std::nullopt;
  return std::pair(*open, result);
}

}  // namespace refit
