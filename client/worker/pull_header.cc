#include "client/worker/pull_header.h"

#include "absl/strings/str_cat.h"
#include "common/net/version_key.h"
#include "common/net/version_summary.h"
#include "refit/tensor_spec.h"

namespace refit {

absl::Status CheckHeader(const v1::VersionSummary& header, const PullOptions& options, const PullErrors& errors) {
  if (header.model() != options.model || (options.version.has_value() && header.version() != *options.version)) {
    return errors.Breach(absl::StrCat("it sends version ", Printable(header.model()), "/", header.version()));
  }
  if (options.trainer_epoch.has_value() && header.trainer_epoch() != *options.trainer_epoch) {
    return absl::NotFoundError(absl::StrCat(errors.context(), ": the service has ", Describe(KeyOf(header)),
                                            ", not of epoch ", *options.trainer_epoch));
  }
  if (header.chunk_bytes() == 0) return errors.Breach("a header with chunk_bytes 0");
  if (header.layout() != v1::LAYOUT_WHOLE) {
    return errors.Breach(absl::StrCat("layout ", header.layout(), ", which was not asked for"));
  }
  return absl::OkStatus();
}

bool IsSameVersion(const v1::VersionSummary& header, const VersionSummary& version) {
  const bool has_its_form = header.model() == version.model && header.version() == version.version &&
                            header.trainer_epoch() == version.trainer_epoch && header.tensors() == version.tensors &&
                            header.bytes() == version.bytes && header.chunk_bytes() == version.chunk_bytes;
  if (!has_its_form) return false;
  if (header.has_manifest_digest() && version.manifest_digest.has_value()) {
    return header.manifest_digest() == *version.manifest_digest;
  }
  return header.opened_at_ns() == version.opened_at_ns;
}

}  // namespace refit
