// Any messages in any order to a live service: several pushes at a time, pulls, and all other calls. Every call ends,
// nothing of them stays behind, and the next client is served.
//
// Input: one byte that says which service (with versions retained, or streamed), then records: what to do, of which
// stream or method, the message's length in two bytes, the message. Methods are in the order of Methods().
#include <google/protobuf/message.h>
#include <google/protobuf/stubs/logging.h>
#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/net/byte_buffer.h"
#include "common/net/channel.h"
#include "common/net/messages.h"
#include "common/net/raw_call.h"
#include "common/wire/digest.h"
#include "refit/server.h"
#include "refit/v1/inspect.grpc.pb.h"
#include "refit/v1/pull.grpc.pb.h"
#include "refit/v1/push.grpc.pb.h"
#include "refit/v1/relay.grpc.pb.h"
#include "tests/fuzz/fuzz_check.h"
#include "tests/fuzz/fuzz_input.h"

namespace refit {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kPatience{20'000};  // for what must come
constexpr milliseconds kGlance{5};         // for what may come
constexpr uint64_t kChunkBytes = 4096;
constexpr int kRunsOfAService = 256;
constexpr size_t kStreams = 3;
constexpr int kMessagesRead = 16;

absl::Span<const std::byte> BytesOf(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

grpc::ByteBuffer RawMessage(const std::string& bytes) {
  const grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}

// A call that takes one message. `stays`: it may stay open for as long as the worker likes.
struct Method {
  const char* path;
  const google::protobuf::Message* request;
  bool stays;
};

const std::vector<Method>& Methods() {
  static const std::vector<Method> methods = {
      {"/refit.v1.PullService/Pull", &v1::PullRequest::default_instance(), true},
      {"/refit.v1.PullService/WatchVersions", &v1::WatchVersionsRequest::default_instance(), true},
      {"/refit.v1.PullService/GetManifest", &v1::GetManifestRequest::default_instance(), false},
      {"/refit.v1.PullService/EndLease", &v1::EndLeaseRequest::default_instance(), false},
      {"/refit.v1.PushService/AbortVersion", &v1::AbortVersionRequest::default_instance(), false},
      {"/refit.v1.RelayService/Attend", &v1::AttendRequest::default_instance(), true},
      {"/refit.v1.RelayService/ReportBelow", &v1::ReportBelowRequest::default_instance(), false},
      {"/refit.v1.InspectService/GetServerInfo", &v1::GetServerInfoRequest::default_instance(), false},
      {"/refit.v1.InspectService/ListVersions", &v1::ListVersionsRequest::default_instance(), false},
      {"/refit.v1.InspectService/ListWorkers", &v1::ListWorkersRequest::default_instance(), false},
      {"/refit.v1.InspectService/DescribeVersion", &v1::DescribeVersionRequest::default_instance(), false},
      {"/refit.v1.InspectService/DescribeTensor", &v1::DescribeTensorRequest::default_instance(), false},
      {"/refit.v1.PullService/ReportWorker", &v1::ReportWorkerRequest::default_instance(), false},
      {"/refit.v1.PushService/ReleaseInstalls", &v1::ReleaseInstallsRequest::default_instance(), false},
      {"/refit.v1.PushService/AwaitWorkers", &v1::AwaitWorkersRequest::default_instance(), true},
  };
  return methods;
}

// A service, replaced now and then so that what it keeps does not grow without end.
class Service {
 public:
  explicit Service(uint32_t retain)
      : path_(std::filesystem::temp_directory_path() / absl::StrCat("refit-fuzz-", getpid(), "-", retain, ".sock")) {
    ServerOptions options;
    options.listen = absl::StrCat("unix:", path_.string());
    options.convert_threads = 1;
    options.store.chunk_bytes = kChunkBytes;
    options.store.memory_budget_bytes = 8 << 20;
    options.store.retain_versions = retain;
    options.limits.max_tensors_per_version = 16;
    options.limits.max_name_bytes = 200;
    options.limits.max_message_bytes = 64 << 10;
    options.limits.push_window_bytes = 64 << 10;
    options.limits.packed_bytes = 64 << 10;
    options.limits.push_idle_timeout = milliseconds(2000);
    options.limits.rank_join_timeout = milliseconds(2000);
    options.limits.worker_timeout = milliseconds(200);
    options.limits.waiting_interval = milliseconds(20);
    auto server = RefitServer::Start(options);
    FUZZ_CHECK(server.ok()) << server.status().ToString();
    server_ = *std::move(server);
    ChannelOptions channel;
    channel.address = server_->address();
    auto connected = Connect(channel);
    FUZZ_CHECK(connected.ok()) << connected.status().ToString();
    channel_ = *connected;
  }
  ~Service() {
    server_.reset();
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }
  Service(const Service&) = delete;
  Service& operator=(const Service&) = delete;

  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }

  // A model of its own for every run, so that none sees what another left behind.
  std::string NextModel() { return absl::StrCat("m", ++runs_); }
  bool worn() const { return runs_ >= kRunsOfAService; }

  // Nothing is under way any more, or soon will not be.
  void ExpectQuiet() const {
    const auto stub = v1::InspectService::NewStub(channel_);
    const Clock::time_point deadline = Clock::now() + kPatience;
    v1::GetServerInfoResponse info;
    do {
      grpc::ClientContext context;
      context.set_deadline(std::chrono::system_clock::now() + kPatience);
      const grpc::Status status = stub->GetServerInfo(&context, {}, &info);
      FUZZ_CHECK(status.ok()) << status.error_message();
      FUZZ_CHECK(Clock::now() < deadline) << "pushes" << info.open_pushes() << "pulls" << info.active_pulls();
    } while (info.open_pushes() + info.active_pulls() > 0);
    FUZZ_CHECK(info.memory_reserved_bytes() <= info.memory_budget_bytes());
  }

 private:
  const std::filesystem::path path_;
  std::unique_ptr<RefitServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  int runs_ = 0;
};

// What the peer sends is read until it ends the call.
void ExpectEnd(RawCall& call) {
  const Clock::time_point begin = Clock::now();
  while (true) {
    const auto answer = call.Read(kPatience);
    if (!answer.ok() || !answer->has_value()) break;
  }
  (void)call.Finish(kPatience);
  FUZZ_CHECK(Clock::now() - begin < kPatience) << "a call does not end";
}

class Run {
 public:
  explicit Run(Service& service) : service_(service), model_(service.NextModel()) {}

  void Record(FuzzInput& input) {
    const uint8_t what = input.Byte();
    const uint8_t which = input.Byte();
    const auto size = input.Integer<uint16_t>();
    const std::string message = input.Bytes(size);
    switch (what % 8) {
      case 0:
        return Push(which, RawMessage(message));
      case 1:
      case 2:
        return Push(which, Sensible(message));
      case 3:
        return HangUp(pushes_[which % kStreams]);
      case 4:
        if (auto& push = pushes_[which % kStreams]; push != nullptr) push->Cancel();
        return;
      case 5:
        return Call(Methods()[which % Methods().size()], message);
      default:
        return CallOfThisModel(Methods()[which % Methods().size()], message);
    }
  }

  // Whoever hangs up is let go.
  void End() {
    for (auto& push : pushes_) {
      if (push != nullptr) (void)push->WritesDone(kPatience);
    }
    for (auto& push : pushes_) {
      if (push != nullptr) ExpectEnd(*push);
    }
    service_.ExpectQuiet();
  }

 private:
  void Push(uint8_t which, const grpc::ByteBuffer& message) {
    auto& push = pushes_[which % kStreams];
    if (push == nullptr) push = RawCall::Start(service_.channel(), "/refit.v1.PushService/Push");
    (void)push->Write(message, kPatience);
  }

  // And see what became of the version.
  static void HangUp(std::unique_ptr<RawCall>& push) {
    if (push == nullptr) return;
    (void)push->WritesDone(kPatience);
    ExpectEnd(*push);
    push.reset();
  }

  // If it is a request at all: of this run's model, with digests that match, so that changes get past them.
  grpc::ByteBuffer Sensible(const std::string& bytes) const {
    v1::PushRequest request;
    if (!request.ParseFromString(bytes)) return RawMessage(bytes);
    if (request.has_open()) request.mutable_open()->set_model(model_);
    if (request.has_chunks()) {
      for (v1::Chunk& chunk : *request.mutable_chunks()->mutable_chunks()) Digest(chunk);
    }
    if (!request.has_chunk()) return Serialize(request);
    Digest(*request.mutable_chunk());
    return CopyChunkMessage(HeaderOf(request.chunk()), BytesOf(request.chunk().payload()));
  }

  static void Digest(v1::Chunk& chunk) {
    chunk.set_digest(DigestBytes(BytesOf(chunk.payload())));
    if (chunk.has_tensor_digest()) chunk.set_tensor_digest(DigestTensor(BytesOf(chunk.payload()), kChunkBytes));
  }

  void Call(const Method& method, const std::string& message) const {
    const auto call = RawCall::Start(service_.channel(), method.path);
    (void)call->Write(RawMessage(message), kPatience);
    (void)call->WritesDone(kPatience);
    if (method.stays) {
      for (int i = 0; i < kMessagesRead; ++i) {
        const auto answer = call->Read(kGlance);
        if (!answer.ok() || !answer->has_value()) break;
      }
      call->Cancel();
    }
    ExpectEnd(*call);
  }

  void CallOfThisModel(const Method& method, const std::string& bytes) const {
    const std::unique_ptr<google::protobuf::Message> request(method.request->New());
    const google::protobuf::FieldDescriptor* model = request->GetDescriptor()->FindFieldByName("model");
    if (model == nullptr || !request->ParseFromString(bytes)) return Call(method, bytes);
    request->GetReflection()->SetString(request.get(), model, model_);
    Call(method, request->SerializeAsString());
  }

  Service& service_;
  const std::string model_;
  std::array<std::unique_ptr<RawCall>, kStreams> pushes_;
};

Service& ServiceThatRetains(uint32_t versions) {
  static std::array<std::unique_ptr<Service>, 2> services;
  std::unique_ptr<Service>& service = services[versions];
  if (service != nullptr && service->worn()) service.reset();
  if (service == nullptr) service = std::make_unique<Service>(versions);
  return *service;
}

}  // namespace
}  // namespace refit

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // Protobuf would print what it refuses.
  [[maybe_unused]] static const auto printed_before = google::protobuf::SetLogHandler(nullptr);
  refit::FuzzInput input(data, size);
  refit::Run run(refit::ServiceThatRetains(input.Bool() ? 1 : 0));
  for (int records = 0; records < 40 && !input.empty(); ++records) run.Record(input);
  run.End();
  return 0;
}
