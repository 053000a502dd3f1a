// `refit describe`: a version's manifest, or one tensor with a preview and statistics.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/cli/options/options.h"
#include "client/cli/run/run_connected.h"
#include "client/cli/terminal/format.h"
#include "client/cli/terminal/json.h"
#include "client/cli/terminal/listing.h"
#include "client/cli/terminal/table.h"
#include "refit/dtype.h"
#include "refit/inspector.h"
#include "refit/shape.h"
#include "refit/tensor_spec.h"

namespace refit::cli {
namespace {

constexpr uint32_t kPageEntries = 1000;

struct DescribeFlags {
  CommonOptions common;
  std::string version;
  std::string tensor;
  std::string filter;
  uint64_t limit = 0;
  uint32_t preview = 8;
  bool skip_statistics = false;
};

std::string DTypeName(v1::DType dtype) {
  const absl::StatusOr<DType> known = DTypeFromWire(dtype);
  return known.ok() ? std::string(Name(*known)) : absl::StrCat("dtype ", static_cast<int>(dtype));
}

std::string ShapeText(const v1::TensorSpec& tensor) {
  return ToString(Shape(tensor.shape().begin(), tensor.shape().end()));
}

std::string DigestText(const v1::ManifestEntry& entry) {
  return entry.has_digest() ? FormatDigest(entry.digest()) : "not converted yet";
}

void PrintVersion(const v1::VersionSummary& version) {
  Facts facts;
  facts.Add("model", Printable(version.model()));
  facts.Add("version", absl::StrCat(version.version(), ", ", StateName(version.state()),
                                    version.abort_reason().empty() ? "" : ": ", Printable(version.abort_reason())));
  if (const std::string ranks = RanksText(version); !ranks.empty()) facts.Add("ranks", ranks);
  facts.Add("tensors",
            absl::StrCat(version.tensors(), " from ", FormatCount(version.declared_tensors(), "native tensor"),
                         " by adapter ", version.adapter()));
  facts.Add("bytes", absl::StrCat(FormatBytes(version.bytes()), " (", version.bytes(), "), ",
                                  FormatPercent(version.converted_bytes(), version.bytes()), " converted"));
  facts.Add("opened", FormatTime(version.opened_at_ns()));
  facts.Add("closed", version.closed_at_ns() == 0 ? "not yet"
                                                  : absl::StrCat(FormatTime(version.closed_at_ns()), ", after ",
                                                                 FormatDuration(Seconds(version))));
  if (version.has_manifest_digest()) facts.Add("digest", FormatDigest(version.manifest_digest()));
  facts.Print(stdout);
}

void PrintEntries(const std::vector<v1::ManifestEntry>& entries) {
  Table table({{"tensor"}, {"dtype"}, {"shape"}, {"bytes", Align::kRight}, {"digest"}});
  for (const v1::ManifestEntry& entry : entries) {
    table.AddRow({Printable(entry.tensor().name()), DTypeName(entry.tensor().dtype()), ShapeText(entry.tensor()),
                  FormatBytes(entry.bytes()), DigestText(entry)});
  }
  table.Print(stdout);
}

// Prints the whole manifest, page by page, or its first `limit` entries.
absl::Status DescribeVersion(const DescribeFlags& flags, Inspector& inspector) {
  v1::DescribeVersionRequest request;
  request.set_model(flags.common.model);
  *request.mutable_version() = SelectVersion(flags.version);
  request.set_filter(flags.filter);
  v1::VersionSummary summary;
  std::vector<v1::ManifestEntry> entries;
  bool more = false;
  do {
    const uint64_t left = flags.limit == 0 ? kPageEntries : flags.limit - entries.size();
    request.set_page_size(static_cast<uint32_t>(std::min<uint64_t>(left, kPageEntries)));
    absl::StatusOr<v1::DescribeVersionResponse> page = inspector.DescribeVersion(request);
    if (!page.ok()) return page.status();
    summary = page->summary();
    // Later pages must be of the same version, even if a newer one is committed meanwhile.
    request.mutable_version()->set_number(summary.version());
    entries.insert(entries.end(), page->entries().begin(), page->entries().end());
    request.set_page_token(page->next_page_token());
    more = !page->next_page_token().empty();
  } while (more && (flags.limit == 0 || entries.size() < flags.limit));

  if (flags.common.json) {
    nlohmann::ordered_json json = {{"summary", ToJson(summary)}, {"entries", nlohmann::ordered_json::array()}};
    for (const v1::ManifestEntry& entry : entries) json["entries"].push_back(ToJson(entry));
    json["more"] = more;
    PrintJson(json);
    return absl::OkStatus();
  }
  PrintVersion(summary);
  std::printf("\n");
  if (entries.empty()) {
    std::printf("No tensor matches\n");
    return absl::OkStatus();
  }
  PrintEntries(entries);
  if (more) std::printf("... and more; --limit %d ended the list\n", static_cast<int>(flags.limit));
  return absl::OkStatus();
}

void PrintTensor(const v1::DescribeTensorResponse& response) {
  const v1::ManifestEntry& entry = response.entry();
  Facts facts;
  facts.Add("tensor", Printable(entry.tensor().name()));
  facts.Add("version", absl::StrCat(response.version().version(), ", ", StateName(response.version().state())));
  facts.Add("dtype", DTypeName(entry.tensor().dtype()));
  facts.Add("shape", ShapeText(entry.tensor()));
  facts.Add("bytes", absl::StrCat(FormatBytes(entry.bytes()), " (", entry.bytes(), ")"));
  facts.Add("digest", DigestText(entry));
  if (response.preview_size() > 0)
    facts.Add("first", absl::StrJoin(response.preview(), "  ",
                                     [](std::string* out, double value) { out->append(FormatNumber(value)); }));
  if (response.has_statistics()) {
    const v1::TensorStatistics& statistics = response.statistics();
    const auto number = [](bool present, double value) { return present ? FormatNumber(value) : std::string("-"); };
    facts.Add("elements", absl::StrCat(statistics.elements(), ": ", statistics.zero_count(), " zero, ",
                                       statistics.nan_count(), " NaN, ", statistics.inf_count(), " infinite"));
    facts.Add("min", number(statistics.has_min(), statistics.min()));
    facts.Add("max", number(statistics.has_max(), statistics.max()));
    facts.Add("mean", number(statistics.has_mean(), statistics.mean()));
  }
  facts.Print(stdout);
}

absl::Status DescribeTensor(const DescribeFlags& flags, Inspector& inspector) {
  v1::DescribeTensorRequest request;
  request.set_model(flags.common.model);
  *request.mutable_version() = SelectVersion(flags.version);
  request.set_name(flags.tensor);
  request.set_preview_elements(flags.preview);
  request.set_skip_statistics(flags.skip_statistics);
  absl::StatusOr<v1::DescribeTensorResponse> response = inspector.DescribeTensor(request);
  if (!response.ok()) return response.status();
  if (flags.common.json) {
    PrintJson(ToJson(*response));
  } else {
    PrintTensor(*response);
  }
  return absl::OkStatus();
}

absl::Status RunDescribe(const DescribeFlags& flags) {
  return RunConnected<Inspector>(flags.common, kNothingChanged, [&](Inspector& inspector) {
    return flags.tensor.empty() ? DescribeVersion(flags, inspector) : DescribeTensor(flags, inspector);
  });
}

}  // namespace

void AddDescribeCommand(CLI::App& app, Invocation& invocation) {
  const auto flags = std::make_shared<DescribeFlags>();
  CLI::App* command = AddCommand(app, invocation, "describe", "Show a version's manifest, or look into one tensor",
                                 "Examples:\n"
                                 "  refit describe latest\n"
                                 "  refit describe 7 --filter 'layers\\.0\\.' --limit 20\n"
                                 "  refit describe latest model.language_model.norm.weight\n",
                                 [flags] { return RunDescribe(*flags); });
  command->add_option("VERSION", flags->version, "Number of the version, or latest: the newest committed one")
      ->required()
      ->check(VersionOrLatest())
      ->type_name("");
  CLI::Option* tensor =
      command->add_option("TENSOR", flags->tensor, "Full name of a tensor: shows values and statistics")->type_name("");
  command->add_option("--filter", flags->filter, "Only tensors in whose name this RE2 pattern is found")
      ->type_name("RX")
      ->excludes(tensor);
  command->add_option("--limit", flags->limit, "At most so many tensors; 0: all")
      ->type_name("N")
      ->capture_default_str()
      ->excludes(tensor);
  command->add_option("--preview", flags->preview, "How many of the tensor's first elements to show, at most 1000")
      ->check(AtLeast(1))
      ->type_name("N")
      ->capture_default_str()
      ->needs(tensor);
  command->add_flag("--no-statistics", flags->skip_statistics, "Do not compute min, max, mean and counts")
      ->needs(tensor);
  AddModelOption(command, flags->common);
  AddServerOptions(command, flags->common);
}

}  // namespace refit::cli
