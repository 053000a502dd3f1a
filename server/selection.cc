#include "server/selection.h"

#include <set>

#include "absl/strings/str_cat.h"
#include "common/adapters/python_regex.h"
#include "common/net/messages.h"

namespace refit {
namespace {

constexpr size_t kPartBytes = 1 << 20;  // well below any message limit

}  // namespace

absl::StatusOr<std::vector<size_t>> SelectTensors(const Version& version, const std::string& filter,
                                                  const google::protobuf::RepeatedPtrField<std::string>& names) {
  std::shared_ptr<const PythonRegex> regex;
  if (!filter.empty()) {
    absl::StatusOr<std::shared_ptr<const PythonRegex>> compiled = PythonRegex::Compile(filter);
    if (!compiled.ok()) return compiled.status();
    regex = *std::move(compiled);
  }
  std::set<std::string> wanted(names.begin(), names.end());
  const bool all_names = wanted.empty();
  std::vector<size_t> selection;
  for (size_t i = 0; i < version.size(); ++i) {
    const std::string& name = version.spec(i).name;
    if (!all_names && wanted.erase(name) == 0) continue;
    if (regex == nullptr || regex->Search(name)) selection.push_back(i);
  }
  if (!wanted.empty()) {
    return absl::NotFoundError(
        absl::StrCat("version ", version.Label(), " has no tensor named '", Printable(*wanted.begin()), "'"));
  }
  return selection;
}

void FillEntry(const Version& version, size_t tensor, v1::ManifestEntry& entry) {
  const TensorSpec& spec = version.spec(tensor);
  ToProto(spec, *entry.mutable_tensor());
  entry.set_bytes(spec.ByteSize());
  if (const std::optional<uint64_t> digest = version.tensor_digest(tensor)) entry.set_digest(*digest);
}

v1::ManifestPart MakeManifestPart(const Version& version, const std::vector<size_t>& selection, size_t first) {
  v1::ManifestPart part;
  part.set_first(first);
  if (first == 0) *part.mutable_summary() = version.Summary();
  size_t bytes = 0;
  size_t next = first;
  for (; next < selection.size() && bytes < kPartBytes; ++next) {
    v1::ManifestEntry& entry = *part.add_entries();
    FillEntry(version, selection[next], entry);
    bytes += entry.ByteSizeLong();
  }
  part.set_last(next == selection.size());
  return part;
}

}  // namespace refit
