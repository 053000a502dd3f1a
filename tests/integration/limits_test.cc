// Every limit, one row each: what is beyond is refused with RESOURCE_EXHAUSTED, naming the limit, its value and its
// flag; what is just within is served, and so is everybody else afterwards.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "common/net/byte_buffer.h"
#include "common/net/channel.h"
#include "common/net/raw_call.h"
#include "common/net/status.h"
#include "common/wire/digest.h"
#include "refit/publisher.h"
#include "refit/server.h"
#include "refit/subscriber.h"
#include "refit/v1/inspect.grpc.pb.h"
#include "refit/v1/pull.grpc.pb.h"
#include "refit/v1/push.grpc.pb.h"
#include "tests/support/status_matchers.h"

namespace refit {
namespace {

using absl::StatusCode;
using ::testing::HasSubstr;

constexpr std::chrono::seconds kPatience{30};

const TensorSpec kWeights{"w", DType::kU8, {16}};

using Call = std::unique_ptr<RawCall>;

// What a row needs of the service.
class Service {
 public:
  explicit Service(const std::function<void(ServerOptions&)>& limit) {
    ServerOptions options;
    options.listen = "127.0.0.1:0";
    options.store.chunk_bytes = 4096;
    options.store.memory_budget_bytes = 1 << 20;
    limit(options);
    auto server = RefitServer::Start(options);
    EXPECT_OK(server);
    server_ = *std::move(server);
    channel_options_.address = server_->address();
    auto channel = Connect(channel_options_);
    EXPECT_OK(channel);
    channel_ = *channel;
    publisher_ = *Publisher::Connect(channel_options_);
    subscriber_ = *Subscriber::Connect(channel_options_);
  }

  absl::StatusOr<std::unique_ptr<VersionPush>> Open(const PublishOptions& options,
                                                    std::vector<TensorSpec> native = {kWeights}) {
    return publisher_->Open(options, std::move(native));
  }

  // A version of the model, committed.
  absl::Status Push(const std::string& model, uint64_t version) {
    auto push = Open(Options(model, version));
    if (!push.ok()) return push.status();
    const std::vector<std::byte> bytes(16);
    if (absl::Status status = (*push)->Push("w", bytes); !status.ok()) return status;
    return (*push)->Commit().status();
  }

  static PublishOptions Options(const std::string& model, uint64_t version) {
    PublishOptions options;
    options.model = model;
    options.version = version;
    options.adapter = "identity";
    return options;
  }

  absl::Status Pull(const std::string& model, const std::function<void(PullOptions&)>& change = nullptr) {
    PullOptions options;
    options.model = model;
    if (change) change(options);
    return subscriber_->Pull(options).status();
  }

  // A worker that watches, as long as what is returned lives. The status if it is refused.
  struct Watch {
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReader<v1::VersionEvent>> reader;
    ~Watch() {
      if (reader == nullptr) return;
      context.TryCancel();
      (void)reader->Finish();
    }
  };
  absl::StatusOr<std::unique_ptr<Watch>> StartWatch(const std::string& worker) {
    auto watch = std::make_unique<Watch>();
    v1::WatchVersionsRequest request;
    request.set_model("healthy");
    request.set_worker(worker);
    watch->reader = v1::PullService::NewStub(channel_)->WatchVersions(&watch->context, request);
    v1::VersionEvent event;
    if (watch->reader->Read(&event)) return watch;
    const absl::Status status = FromGrpc(watch->reader->Finish());
    watch->reader.reset();
    return status;
  }

  template <typename Request>
  absl::Status Manifest(const Request& change) {
    grpc::ClientContext context;
    v1::GetManifestRequest request;
    request.set_model("healthy");
    change(request);
    auto reader = v1::PullService::NewStub(channel_)->GetManifest(&context, request);
    for (v1::ManifestPart part; reader->Read(&part);) continue;
    return FromGrpc(reader->Finish());
  }

  absl::Status Describe(const std::string& filter) {
    grpc::ClientContext context;
    v1::DescribeVersionRequest request;
    request.set_model("healthy");
    request.set_filter(filter);
    v1::DescribeVersionResponse response;
    return FromGrpc(v1::InspectService::NewStub(channel_)->DescribeVersion(&context, request, &response));
  }

  // A push whose one message is this long.
  absl::Status PushMessage(size_t bytes) {
    auto call = RawCall::Start(channel_, "/refit.v1.PushService/Push");
    v1::PushRequest request;
    request.mutable_open()->set_publisher(std::string(bytes, 'p'));
    (void)call->Write(Serialize(request), kPatience);
    (void)call->WritesDone(kPatience);
    return call->Finish(kPatience);
  }

 private:
  std::unique_ptr<RefitServer> server_;
  ChannelOptions channel_options_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<Publisher> publisher_;
  std::unique_ptr<Subscriber> subscriber_;
};

struct Row {
  const char* name;
  std::function<void(ServerOptions&)> limit;
  std::function<absl::Status(Service&)> within;
  std::function<absl::Status(Service&)> beyond;
  std::vector<std::string> message;
};

absl::Status OpenTensor(Service& service, const TensorSpec& spec) {
  return service.Open(Service::Options("x", 1), {spec}).status();
}

TensorSpec OfDimensions(size_t count) { return {"w", DType::kU8, Shape(count, 1)}; }

// Streams that have ended for the client may still be counted for a moment.
absl::Status UntilThereIsRoom(const std::function<absl::Status()>& attempt) {
  const absl::Time deadline = absl::Now() + absl::Seconds(10);
  absl::Status status = attempt();
  while (absl::IsResourceExhausted(status) && absl::Now() < deadline) status = attempt();
  return status;
}

// Opens one version in each of `models`; the first error.
absl::Status OpenModels(Service& service, const std::vector<std::string>& models) {
  std::vector<absl::StatusOr<std::unique_ptr<VersionPush>>> open;
  for (const std::string& model : models) {
    open.push_back(service.Open(Service::Options(model, 1)));
    if (!open.back().ok()) return open.back().status();
  }
  return absl::OkStatus();
}

absl::Status WatchAs(Service& service, const std::vector<std::string>& workers) {
  std::vector<absl::StatusOr<std::unique_ptr<Service::Watch>>> watches;
  for (const std::string& worker : workers) {
    watches.push_back(service.StartWatch(worker));
    if (!watches.back().ok()) return watches.back().status();
  }
  return absl::OkStatus();
}

absl::Status PullWithRules(Service& service, size_t count, const std::string& pattern = "") {
  return service.Pull("healthy", [&](PullOptions& options) {
    LayoutRule rule;
    rule.pattern = pattern;
    rule.parts = 1;
    options.rules.assign(count, rule);
  });
}

std::vector<Row> Rows() {
  const auto of_ranks = [](uint32_t world) {
    return [world](Service& service) {
      PublishOptions options = Service::Options("x", 1);
      options.world = world;
      options.timeout = std::chrono::milliseconds(200);  // no other rank comes
      absl::Status status = service.Open(options).status();
      return absl::IsDeadlineExceeded(status) ? absl::OkStatus() : status;
    };
  };
  const auto regex = [](ServerOptions& o) { o.limits.max_regex_bytes = 10; };
  const std::string ok = "w|wwwwwwww";  // 10 bytes
  const std::string long_regex(11, 'w');
  const std::vector<std::string> regex_message = {"11 bytes", "10", "--max-regex-bytes"};
  return {
      {"Memory",
       [](ServerOptions&) {},
       [](Service& s) {
         return OpenTensor(s, {"w", DType::kU8, {1 << 19}});
       },
       [](Service& s) {
         return OpenTensor(s, {"w", DType::kU8, {(1 << 20) + 1}});
       },
       {"1048577 bytes", "1048576", "--memory"}},
      {"Models",
       [](ServerOptions& o) { o.store.max_models = 2; },
       [](Service& s) { return s.Push("second", 1); },
       [](Service& s) { return s.Push("third", 1); },
       {"model", "2", "--max-models"}},
      {"OpenVersions",
       [](ServerOptions& o) { o.store.max_open_versions = 2; },
       [](Service& s) {
         return OpenModels(s, {"a", "b"});
       },
       [](Service& s) {
         return OpenModels(s, {"a", "b", "c"});
       },
       {"open version", "2", "--max-open-versions"}},
      {"Tensors",
       [](ServerOptions& o) { o.limits.max_tensors_per_version = 2; },
       [](Service& s) {
         return s.Open(Service::Options("x", 1), {{"a", DType::kU8, {1}}, {"b", DType::kU8, {1}}}).status();
       },
       [](Service& s) {
         return s
             .Open(Service::Options("x", 1), {{"a", DType::kU8, {1}}, {"b", DType::kU8, {1}}, {"c", DType::kU8, {1}}})
             .status();
       },
       {"2 native tensors", "--max-tensors"}},
      {"NameBytes",
       [](ServerOptions& o) { o.limits.max_name_bytes = 20; },
       [](Service& s) {
         return OpenTensor(s, {std::string(20, 'n'), DType::kU8, {1}});
       },
       [](Service& s) {
         return OpenTensor(s, {std::string(21, 'n'), DType::kU8, {1}});
       },
       {"nnn", "21 bytes", "20", "--max-name-bytes"}},
      {"Dimensions",
       [](ServerOptions& o) { o.limits.max_dimensions = 3; },
       [](Service& s) { return OpenTensor(s, OfDimensions(3)); },
       [](Service& s) { return OpenTensor(s, OfDimensions(4)); },
       {"\"w\"", "4 dimensions", "3", "--max-dimensions"}},
      {"Ranks",
       [](ServerOptions& o) { o.limits.max_ranks = 4; },
       of_ranks(4),
       of_ranks(5),
       {"5 ranks", "4", "--max-ranks"}},
      {"Pushes",
       [](ServerOptions& o) { o.limits.max_pushes = 2; },
       [](Service& s) {
         return OpenModels(s, {"a", "b"});
       },
       [](Service& s) {
         return OpenModels(s, {"a", "b", "c"});
       },
       {"2 push streams", "--max-pushes"}},
      {"Pulls",
       [](ServerOptions& o) { o.limits.max_pulls = 0; },
       [](Service& s) { return s.Push("healthy", 7); },
       [](Service& s) { return s.Pull("healthy"); },
       {"0 pulls", "--max-pulls"}},
      {"Workers",
       [](ServerOptions& o) { o.limits.max_workers = 2; },
       [](Service& s) {
         return WatchAs(s, {"a", "b", "b"});
       },
       [](Service& s) {
         return WatchAs(s, {"a", "b", "c"});
       },
       {"worker 'c'", "2", "--max-workers"}},
      {"WorkersThatPull",
       [](ServerOptions& o) { o.limits.max_workers = 1; },
       [](Service& s) { return s.Pull("healthy"); },
       [](Service& s) {
         const auto watch = s.StartWatch("a");
         return watch.ok() ? s.Pull("healthy", [](PullOptions& o) { o.worker = "b"; }) : watch.status();
       },
       {"worker 'b'", "1", "--max-workers"}},
      {"StreamsOfAPeerThatWatches",
       [](ServerOptions& o) { o.limits.max_streams_per_peer = 2; },
       [](Service& s) {
         return WatchAs(s, {"a", "b"});
       },
       [](Service& s) {
         return WatchAs(s, {"a", "b", "c"});
       },
       {"127.0.0.1 has 2 streams", "--max-streams-per-peer"}},
      {"StreamsOfAPeerThatPushes",
       [](ServerOptions& o) { o.limits.max_streams_per_peer = 2; },
       [](Service& s) {
         return OpenModels(s, {"a", "b"});
       },
       [](Service& s) {
         return OpenModels(s, {"a", "b", "c"});
       },
       {"127.0.0.1 has 2 streams", "--max-streams-per-peer"}},
      {"StreamsOfAPeerThatPulls",
       [](ServerOptions& o) { o.limits.max_streams_per_peer = 1; },
       [](Service& s) { return s.Pull("healthy"); },
       [](Service& s) {
         const auto watch = s.StartWatch("a");
         return watch.ok() ? s.Pull("healthy") : watch.status();
       },
       {"127.0.0.1 has 1 streams", "--max-streams-per-peer"}},
      {"StreamsOfAPeerThatReadsManifests",
       [](ServerOptions& o) { o.limits.max_streams_per_peer = 1; },
       [](Service& s) { return s.Manifest([](auto&) {}); },
       [](Service& s) {
         const auto watch = s.StartWatch("a");
         return watch.ok() ? s.Manifest([](auto&) {}) : watch.status();
       },
       {"127.0.0.1 has 1 streams", "--max-streams-per-peer"}},
      {"RegexOfAPush", regex,
       [=](Service& s) {
         PublishOptions options = Service::Options("x", 1);
         options.exclude_key_regex = std::string(10, 'v');
         return s.Open(options).status();
       },
       [=](Service& s) {
         PublishOptions options = Service::Options("x", 1);
         options.exclude_key_regex = std::string(11, 'v');
         return s.Open(options).status();
       },
       regex_message},
      {"RegexOfAPull", regex, [=](Service& s) { return s.Pull("healthy", [&](auto& o) { o.filter = ok; }); },
       [=](Service& s) { return s.Pull("healthy", [&](auto& o) { o.filter = long_regex; }); }, regex_message},
      {"RegexOfARule", regex, [=](Service& s) { return PullWithRules(s, 1, "w"); },
       [=](Service& s) { return PullWithRules(s, 1, long_regex); }, regex_message},
      {"RegexOfAManifest", regex, [=](Service& s) { return s.Manifest([&](auto& r) { r.set_filter(ok); }); },
       [=](Service& s) { return s.Manifest([&](auto& r) { r.set_filter(long_regex); }); }, regex_message},
      {"RegexOfADescription", regex, [=](Service& s) { return s.Describe(ok); },
       [=](Service& s) { return s.Describe(long_regex); }, regex_message},
      {"Rules",
       [](ServerOptions& o) { o.limits.max_rules = 3; },
       [](Service& s) { return PullWithRules(s, 3); },
       [](Service& s) { return PullWithRules(s, 4); },
       {"4 layout rules", "3", "--max-rules"}},
      // gRPC's own, which knows no flags.
      {"MessageBytes",
       [](ServerOptions& o) { o.limits.max_message_bytes = 1 << 16; },
       [](Service& s) {
         const absl::Status status = s.PushMessage((1 << 16) - 100);
         return absl::IsFailedPrecondition(status) ? absl::OkStatus() : status;  // it ends before a commit
       },
       [](Service& s) { return s.PushMessage(1 << 16); },
       {"65536"}},
  };
}

TEST(Limits, EachIsKeptAndNamed) {
  for (const Row& row : Rows()) {
    SCOPED_TRACE(row.name);
    Service service(row.limit);
    ASSERT_OK(service.Push("healthy", 1));
    EXPECT_OK(UntilThereIsRoom([&] { return row.within(service); }));
    const absl::Status status = row.beyond(service);
    EXPECT_EQ(status.code(), StatusCode::kResourceExhausted) << status;
    for (const std::string& part : row.message) EXPECT_THAT(std::string(status.message()), HasSubstr(part));
    // What was refused has left nothing behind.
    EXPECT_OK(UntilThereIsRoom([&] { return service.Push("healthy", 1000); }));
    if (std::string(row.name) == "Pulls") continue;  // none at all
    EXPECT_OK(UntilThereIsRoom([&] { return service.Pull("healthy"); }));
  }
}

// Bytes in flight are no matter of refusal: who sends ahead of his window is held back.
TEST(Limits, BytesInFlightAreAWindow) {
  constexpr uint64_t kWindow = 64 << 10;
  ServerOptions options;
  options.listen = "127.0.0.1:0";
  options.store.chunk_bytes = 4096;
  options.limits.push_window_bytes = kWindow;
  auto server = RefitServer::Start(options);
  ASSERT_OK(server);
  ChannelOptions channel_options;
  channel_options.address = (*server)->address();
  auto channel = Connect(channel_options);
  ASSERT_OK(channel);
  auto call = RawCall::Start(*channel, "/refit.v1.PushService/Push");
  v1::PushRequest request;
  request.mutable_open()->set_model("m");
  request.mutable_open()->set_version(1);
  request.mutable_open()->set_adapter("identity");
  ASSERT_OK(call->Write(Serialize(request), kPatience));
  constexpr uint64_t kBytes = 16 * kWindow;
  v1::DeclareTensors& declare = *request.mutable_declare();
  declare.set_last(true);
  v1::TensorSpec& spec = *declare.add_tensors()->mutable_tensor();
  spec.set_name("w");
  spec.set_dtype(v1::DTYPE_U8);
  spec.add_shape(kBytes);
  ASSERT_OK(call->Write(Serialize(request), kPatience));
  auto answer = call->Read(kPatience);
  ASSERT_OK(answer);
  v1::PushResponse opened;
  ASSERT_OK(Parse(**answer, opened));
  EXPECT_EQ(opened.opened().window_bytes(), kWindow);
  // All at once, no `received` awaited.
  const std::vector<std::byte> payload(4096, std::byte{7});
  const std::vector<std::byte> whole(kBytes, std::byte{7});
  for (uint64_t offset = 0; offset < kBytes; offset += payload.size()) {
    ChunkHeader header;
    header.offset = offset;
    header.digest = DigestBytes(payload);
    if (offset + payload.size() == kBytes) header.tensor_digest = DigestTensor(whole, 4096);
    ASSERT_OK(call->Write(CopyChunkMessage(header, payload), kPatience));
  }
  request.mutable_commit();
  ASSERT_OK(call->Write(Serialize(request), kPatience));
  (void)call->WritesDone(kPatience);
  while (true) {
    auto message = call->Read(kPatience);
    ASSERT_OK(message);
    if (!message->has_value()) break;
  }
  EXPECT_OK(call->Finish(kPatience));
}

}  // namespace
}  // namespace refit
