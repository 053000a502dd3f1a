#include "server/access/limit_checks.h"

#include <cstdint>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "refit/tensor_spec.h"
#include "server/access/limit_reached.h"

namespace refit {
namespace {

// "<what> has 5000 bytes; at most 4096 are accepted, which is the limit (--max-regex-bytes)". `what` is only called for
// an error, because many tensors are checked.
absl::Status CheckLimit(absl::FunctionRef<std::string()> what, uint64_t has, absl::string_view unit, uint64_t limit,
                        absl::string_view flag) {
  if (has <= limit) return absl::OkStatus();
  return LimitReached(flag, absl::StrCat(what(), " has ", has, " ", unit, "; at most ", limit,
                                         " are accepted, which is the limit (", flag, ")"));
}

template <typename Request>
absl::Status CheckFilterAndRules(const Request& request, const Limits& limits) {
  if (absl::Status status = CheckRegex(request.filter(), limits); !status.ok()) return status;
  const absl::Status count =
      CheckLimit([] { return "the request"; }, request.rules_size(), "layout rules", limits.max_rules, "--max-rules");
  if (!count.ok()) return count;
  for (const v1::LayoutRule& rule : request.rules()) {
    if (absl::Status status = CheckRegex(rule.pattern(), limits); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckTensor(const v1::TensorSpec& tensor, const Limits& limits) {
  const auto named = [&](absl::string_view what) {
    return [&tensor, what] { return absl::StrCat(what, " \"", Printable(tensor.name()), "\""); };
  };
  const absl::Status length =
      CheckLimit(named("tensor name"), tensor.name().size(), "bytes", limits.max_name_bytes, "--max-name-bytes");
  if (!length.ok()) return length;
  return CheckLimit(named("tensor"), tensor.shape_size(), "dimensions", limits.max_dimensions, "--max-dimensions");
}

absl::Status CheckRegex(absl::string_view pattern, const Limits& limits) {
  return CheckLimit([] { return "a regex"; }, pattern.size(), "bytes", limits.max_regex_bytes, "--max-regex-bytes");
}

absl::Status CheckSelection(const v1::PullRequest& request, const Limits& limits) {
  return CheckFilterAndRules(request, limits);
}

absl::Status CheckSelection(const v1::GetManifestRequest& request, const Limits& limits) {
  return CheckFilterAndRules(request, limits);
}

}  // namespace refit
