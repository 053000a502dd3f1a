#include "server/watch/inspect_service.h"

#include <google/protobuf/stubs/common.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/adapters/adapter_registry.h"
#include "common/net/status.h"
#include "common/tensor/kernels.h"
#include "common/tensor/statistics.h"
#include "refit/version.h"
#include "server/access/limit_checks.h"
#include "server/access/unary_call.h"
#include "server/process/process_info.h"
#include "server/pull/selection.h"

namespace refit {
namespace {

constexpr uint32_t kDefaultPageSize = 1000;
constexpr uint32_t kMaxPageSize = 10'000;
constexpr size_t kMaxPageBytes = 3 << 20;
constexpr uint32_t kDefaultPreview = 8;
constexpr uint32_t kMaxPreview = 1000;

absl::Status FillPage(Observed& observed, const v1::DescribeVersionRequest& request,
                      v1::DescribeVersionResponse& response) {
  absl::StatusOr<std::shared_ptr<Version>> version = observed.store.Find(request.model(), request.version());
  if (!version.ok()) return version.status();
  if (absl::Status status = CheckRegex(request.filter(), observed.admission.limits); !status.ok()) return status;
  absl::StatusOr<std::vector<Selected>> selection = SelectTensors(**version, {request.filter()});
  if (!selection.ok()) return selection.status();
  uint64_t next = 0;
  if (!request.page_token().empty() && (!absl::SimpleAtoi(request.page_token(), &next) || next > selection->size())) {
    return absl::InvalidArgumentError(
        absl::StrCat("page token '", Printable(request.page_token()), "' is none that this service gave out"));
  }
  const uint32_t asked = request.page_size() == 0 ? kDefaultPageSize : request.page_size();
  const uint64_t page_end = next + std::min(asked, kMaxPageSize);
  *response.mutable_summary() = (*version)->Summary();
  size_t bytes = 0;
  for (; next < selection->size() && next < page_end && bytes < kMaxPageBytes; ++next) {
    v1::ManifestEntry& entry = *response.add_entries();
    FillEntry(**version, (*selection)[next], observed.pulls.parts, entry);
    bytes += entry.ByteSizeLong();
  }
  if (next < selection->size()) response.set_next_page_token(absl::StrCat(next));
  return absl::OkStatus();
}

v1::TensorStatistics ToProto(const TensorStatistics& statistics) {
  v1::TensorStatistics proto;
  if (statistics.min.has_value()) proto.set_min(*statistics.min);
  if (statistics.max.has_value()) proto.set_max(*statistics.max);
  if (statistics.mean.has_value()) proto.set_mean(*statistics.mean);
  proto.set_nan_count(statistics.nan_count);
  proto.set_inf_count(statistics.inf_count);
  proto.set_zero_count(statistics.zero_count);
  proto.set_elements(statistics.elements);
  return proto;
}

absl::StatusOr<size_t> FindTensor(const Version& version, const std::string& name) {
  for (size_t i = 0; i < version.size(); ++i) {
    if (version.spec(i).name == name) return i;
  }
  return absl::NotFoundError(absl::StrCat("version ", version.Label(), " has no tensor named '", Printable(name), "'"));
}

absl::Status FillTensor(Observed& observed, const v1::DescribeTensorRequest& request,
                        v1::DescribeTensorResponse& response) {
  absl::StatusOr<std::shared_ptr<Version>> version = observed.store.Find(request.model(), request.version());
  if (!version.ok()) return version.status();
  absl::StatusOr<size_t> tensor = FindTensor(**version, request.name());
  if (!tensor.ok()) return tensor.status();
  absl::StatusOr<std::shared_ptr<const Buffer>> data = (*version)->GetTensor(*tensor);
  if (!data.ok()) return data.status();
  const TensorSpec& spec = (*version)->spec(*tensor);
  FillEntry(**version, {*tensor, WholeBox(spec.shape)}, observed.pulls.parts, *response.mutable_entry());
  *response.mutable_version() = (*version)->Summary();
  if (!IsNumber(spec.dtype)) return absl::OkStatus();
  const auto elements = static_cast<int64_t>(spec.ByteSize() / ElementSize(spec.dtype));
  const uint32_t asked = request.preview_elements() == 0 ? kDefaultPreview : request.preview_elements();
  const int64_t shown = std::min<int64_t>(elements, std::min(asked, kMaxPreview));
  for (int64_t i = 0; i < shown; ++i) response.add_preview(ElementAsDouble(spec.dtype, (*data)->data(), i));
  if (!request.skip_statistics()) {
    *response.mutable_statistics() =
        ToProto(ComputeStatistics(spec.dtype, absl::MakeConstSpan((*data)->data(), spec.ByteSize())));
  }
  return absl::OkStatus();
}

v1::AdapterInfo ToProto(const Family& family) {
  v1::AdapterInfo info;
  info.set_name(family.name);
  info.set_title(family.title);
  info.mutable_models()->Assign(family.models.begin(), family.models.end());
  info.set_engines(family.engines);
  info.set_not_covered(family.not_covered);
  for (const FamilyOption& option : family.options) {
    v1::AdapterOption& added = *info.add_options();
    added.set_name(option.name);
    added.set_help(option.help);
    for (const FamilyOption::Value& value : option.values) added.add_values(value.name);
  }
  info.set_exclude(std::string(ExcludeStageName(family.exclude)));
  info.mutable_keep_dtype()->Assign(family.keep_dtype.begin(), family.keep_dtype.end());
  info.mutable_f32()->Assign(family.f32.begin(), family.f32.end());
  return info;
}

void FillServerInfo(const Observed& observed, v1::GetServerInfoResponse& response) {
  response.set_software_version(SoftwareVersion());
  response.add_libraries(absl::StrCat("gRPC ", grpc::Version()));
  response.add_libraries(absl::StrCat("protobuf ", google::protobuf::internal::VersionString(GOOGLE_PROTOBUF_VERSION)));
  for (const std::shared_ptr<const Family>& family : KnownFamilies()) {
    response.add_adapters(family->name);
    *response.add_adapter_details() = ToProto(*family);
  }
  response.set_started_at_ns(observed.started_at_ns);
  response.set_uptime_seconds(
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::steady_clock::now() - observed.started_at).count());
  const StoreOptions& store = observed.store.options();
  response.set_memory_budget_bytes(store.memory_budget_bytes);
  response.set_memory_reserved_bytes(observed.store.reserved_bytes());
  response.set_memory_pooled_bytes(observed.store.memory().idle_bytes());
  response.set_resident_bytes(ResidentBytes());
  response.set_retain_versions(store.retain_versions);
  response.set_chunk_bytes(store.chunk_bytes);
  response.set_max_message_bytes(observed.admission.limits.max_message_bytes);
  response.set_max_tensors_per_version(observed.admission.limits.max_tensors_per_version);
  response.set_max_name_bytes(observed.admission.limits.max_name_bytes);
  response.set_convert_threads(observed.convert.threads());
  response.set_open_pushes(observed.pushes.open);
  response.set_active_pulls(observed.pulls.open);
  response.set_packed_bytes(observed.pulls.parts.packed().inserted_bytes());
  response.set_shared_packed_bytes(observed.pulls.parts.packed().found_bytes());
  response.set_zone(observed.zone);
  if (observed.pulls.shared_sample.has_value()) {
    *response.mutable_shared_memory() = observed.pulls.shared_sample->announcement();
  }
  if (observed.spool != nullptr) *response.mutable_spool() = observed.spool->Info();
  if (observed.upstream != nullptr) *response.mutable_relay() = observed.upstream->Status();
}

}  // namespace

grpc::ServerUnaryReactor* InspectService::GetServerInfo(grpc::CallbackServerContext* context,
                                                        const v1::GetServerInfoRequest* /*request*/,
                                                        v1::GetServerInfoResponse* response) {
  return AnswerCall(observed_.admission, context, Role::kViewer, [&] {
    FillServerInfo(observed_, *response);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* InspectService::ListVersions(grpc::CallbackServerContext* context,
                                                       const v1::ListVersionsRequest* request,
                                                       v1::ListVersionsResponse* response) {
  return AnswerCall(observed_.admission, context, Role::kViewer, [&] {
    for (const std::shared_ptr<Version>& version : observed_.store.List(request->model())) {
      *response->add_versions() = version->Summary();
    }
    for (const auto& [model, record] : observed_.store.Records()) {
      if (!request->model().empty() && model != request->model()) continue;
      v1::Lineage& lineage = *response->add_lineages();
      lineage.set_model(model);
      lineage.set_trainer_epoch(record.trainer_epoch);
      lineage.set_newest_committed(record.newest_committed);
    }
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* InspectService::ListWorkers(grpc::CallbackServerContext* context,
                                                      const v1::ListWorkersRequest* request,
                                                      v1::ListWorkersResponse* response) {
  return AnswerCall(observed_.admission, context, Role::kViewer, [&] {
    for (v1::Worker& worker : observed_.workers.List(request->model())) *response->add_workers() = std::move(worker);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* InspectService::DescribeVersion(grpc::CallbackServerContext* context,
                                                          const v1::DescribeVersionRequest* request,
                                                          v1::DescribeVersionResponse* response) {
  return AnswerCall(observed_.admission, context, Role::kViewer, [&] {
    const absl::Status status = FillPage(observed_, *request, *response);
    observed_.admission.counters.limits.Add(status);
    return status;
  });
}

grpc::ServerUnaryReactor* InspectService::DescribeTensor(grpc::CallbackServerContext* context,
                                                         const v1::DescribeTensorRequest* request,
                                                         v1::DescribeTensorResponse* response) {
  if (absl::Status status = observed_.admission.Authorize(*context, Role::kViewer); !status.ok())
    return EndCall(context, status);
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  // Statistics read the whole tensor, which is too slow for gRPC's threads.
  observed_.convert.Submit(
      [this, reactor, request, response] { reactor->Finish(ToGrpc(FillTensor(observed_, *request, *response))); });
  return reactor;
}

}  // namespace refit
