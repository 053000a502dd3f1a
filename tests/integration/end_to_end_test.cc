// A trainer pushes, the service converts, workers pull: over real sockets, through the public interfaces.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "client/native/native_source.h"
#include "common/adapters/adapter_registry.h"
#include "common/adapters/native_range_writer.h"
#include "common/tensor/kernels.h"
#include "refit/inspector.h"
#include "refit/publisher.h"
#include "refit/server.h"
#include "refit/subscriber.h"
#include "tests/support/push.h"
#include "tests/support/status_matchers.h"

namespace refit {
namespace {

using ::testing::HasSubstr;

ChannelOptions To(const RefitServer& server) {
  ChannelOptions channel;
  channel.address = server.address();
  return channel;
}

std::unique_ptr<RefitServer> StartServer(ServerOptions options = {}) {
  options.listen = "127.0.0.1:0";
  auto server = RefitServer::Start(options);
  EXPECT_OK(server);
  return server.ok() ? *std::move(server) : nullptr;
}

std::vector<std::byte> ReadWhole(const NativeSource& source, size_t index) {
  std::vector<std::byte> bytes(source.tensors()[index].ByteSize());
  const absl::Span<const std::byte> read = source.Read(index, 0, bytes.size(), absl::MakeSpan(bytes));
  if (read.data() != bytes.data()) std::copy(read.begin(), read.end(), bytes.begin());
  return bytes;
}

// The Hugging Face tensors by name, made at once rather than streamed.
std::map<std::string, std::vector<std::byte>> Expected(const NativeSource& source, std::optional<DType> dtype = {}) {
  ConvertOptions options;
  options.dtype = dtype;
  auto plan = PlanVersion(**FindAdapter(""), source.tensors(), options);
  EXPECT_OK(plan);
  std::map<std::string, std::vector<std::byte>> expected;
  for (const VersionPlan::Output& output : plan->outputs) {
    const TensorSpec& hf = output.planned.hf;
    std::vector<std::byte>& bytes = expected[hf.name];
    bytes.resize(hf.ByteSize());
    if (output.planned.transform == Transform::kOnes) {
      FillOnes(hf.dtype, bytes.data(), bytes.size() / ElementSize(hf.dtype));
    } else {
      WriteNativeRange(TensorPart::Whole(plan->native[output.native_index]), output.planned, 0,
                       ReadWhole(source, output.native_index), bytes.data());
    }
  }
  return expected;
}

void ExpectEqual(const PulledVersion& pulled, const std::map<std::string, std::vector<std::byte>>& expected) {
  ASSERT_EQ(pulled.tensors.size(), expected.size());
  for (const PulledTensor& tensor : pulled.tensors) {
    const std::string& name = tensor.part.tensor.name;
    const auto it = expected.find(name);
    ASSERT_NE(it, expected.end()) << name;
    ASSERT_EQ(it->second.size(), tensor.part.ByteSize()) << name;
    EXPECT_TRUE(std::equal(it->second.begin(), it->second.end(), tensor.data->data())) << name;
  }
}

PublishOptions Publish(uint64_t version) {
  PublishOptions options;
  options.version = version;
  options.publisher = "test-trainer";
  return options;
}

absl::Status PushAll(VersionPush& push, const NativeSource& source, size_t from = 0, size_t to = SIZE_MAX) {
  for (size_t i = from; i < std::min(to, source.tensors().size()); ++i) {
    const std::vector<std::byte> bytes = ReadWhole(source, i);
    if (absl::Status status = push.Append(i, bytes); !status.ok()) return status;
  }
  return absl::OkStatus();
}

// A trainer's connection, and the version that it has open.
struct Trainer {
  std::unique_ptr<Publisher> publisher;
  std::unique_ptr<VersionPush> push;
};

absl::StatusOr<Trainer> OpenVersion(const RefitServer& server, const NativeSource& source,
                                    const PublishOptions& options = Publish(1)) {
  auto publisher = Publisher::Connect(To(server));
  if (!publisher.ok()) return publisher.status();
  auto push = (*publisher)->Open(options, source.tensors());
  if (!push.ok()) return push.status();
  return Trainer{*std::move(publisher), *std::move(push)};
}

absl::StatusOr<VersionSummary> PushVersion(const RefitServer& server, const PublishOptions& options,
                                           const NativeSource& source) {
  auto trainer = OpenVersion(server, source, options);
  if (!trainer.ok()) return trainer.status();
  if (absl::Status status = PushAll(*trainer->push, source); !status.ok()) return status;
  return trainer->push->Commit();
}

absl::StatusOr<PulledVersion> PullVersion(const RefitServer& server, const PullOptions& options = {}) {
  auto subscriber = Subscriber::Connect(To(server));
  if (!subscriber.ok()) return subscriber.status();
  return (*subscriber)->Pull(options);
}

std::shared_ptr<const NativeSource> Tiny(uint64_t seed = 1, std::optional<DType> dtype = {}) {
  SyntheticOptions options;
  options.model = "gemma4_tiny";
  options.seed = seed;
  options.dtype = dtype;
  auto source = OpenSyntheticSource(options);
  EXPECT_OK(source);
  return *source;
}

class EndToEnd : public ::testing::TestWithParam<uint64_t> {
 protected:
  EndToEnd() {
    ServerOptions options;
    options.store.chunk_bytes = GetParam();
    server_ = StartServer(options);
  }
  std::unique_ptr<RefitServer> server_;
};

TEST_P(EndToEnd, TwoWorkersPullEachVersionBitForBit) {
  for (uint64_t version = 1; version <= 3; ++version) {
    const auto source = Tiny(version);
    const auto expected = Expected(*source);
    auto committed = PushVersion(*server_, Publish(version), *source);
    ASSERT_OK(committed);
    EXPECT_EQ(committed->tensors, 165u);
    EXPECT_TRUE(committed->manifest_digest.has_value());
    std::vector<std::thread> workers;
    workers.reserve(2);
    for (int worker = 0; worker < 2; ++worker) {
      workers.emplace_back([&] {
        auto pulled = PullVersion(*server_);
        ASSERT_OK(pulled);
        EXPECT_EQ(pulled->result.version.version, version);
        EXPECT_EQ(pulled->result.version.manifest_digest, committed->manifest_digest);
        ExpectEqual(*pulled, expected);
      });
    }
    for (std::thread& worker : workers) worker.join();
  }
}

TEST_P(EndToEnd, F32MastersArriveAsBf16) {
  const auto source = Tiny(5, DType::kF32);
  PublishOptions options = Publish(1);
  options.dtype = DType::kBF16;
  ASSERT_OK(PushVersion(*server_, options, *source));
  auto pulled = PullVersion(*server_);
  ASSERT_OK(pulled);
  EXPECT_EQ(pulled->tensors[0].part.tensor.dtype, DType::kBF16);
  ExpectEqual(*pulled, Expected(*source, DType::kBF16));
}

// Chunks that end within rows, within experts, and beyond every tensor.
INSTANTIATE_TEST_SUITE_P(ChunkBytes, EndToEnd, ::testing::Values(4096, 64 * 71, 2 << 20));

// Tells when the first tensor is done.
class SignallingSink : public TensorSink {
 public:
  absl::Status Begin(const VersionSummary& version, const std::vector<TensorPart>& tensors) override {
    state_at_begin = version.state;
    parts = tensors;
    return absl::OkStatus();
  }
  absl::StatusOr<absl::Span<std::byte>> Place(size_t index) override {
    memory.resize(parts[index].ByteSize());
    return absl::MakeSpan(memory);
  }
  absl::Status Done(size_t index) override {
    if (index == 0) first_done.Notify();
    ++done;
    return absl::OkStatus();
  }
  VersionState state_at_begin = VersionState::kUnknown;
  std::vector<TensorPart> parts;
  std::vector<std::byte> memory;
  absl::Notification first_done;
  size_t done = 0;
};

TEST(Pipelining, AWorkerReceivesWhileTheTrainerStillPushes) {
  auto server = StartServer();
  const auto source = Tiny();
  auto trainer = OpenVersion(*server, *source);
  ASSERT_OK(trainer);
  auto subscriber = Subscriber::Connect(To(*server));
  ASSERT_OK(subscriber);
  SignallingSink sink;
  absl::StatusOr<PullResult> result;
  PullOptions options;
  options.version = 1;
  std::thread worker([&] { result = (*subscriber)->Pull(options, sink); });
  ASSERT_OK(PushAll(*trainer->push, *source, 0, 10));
  // The trainer has not gone on, and the first tensor is there.
  EXPECT_TRUE(sink.first_done.WaitForNotificationWithTimeout(absl::Seconds(30)));
  ASSERT_OK(PushAll(*trainer->push, *source, 10));
  ASSERT_OK(trainer->push->Commit());
  worker.join();
  ASSERT_OK(result);
  EXPECT_EQ(sink.state_at_begin, VersionState::kOpen);
  EXPECT_EQ(result->version.state, VersionState::kCommitted);
  EXPECT_EQ(sink.done, 165u);
}

TEST(Pipelining, TensorsMayBePushedInAnyOrderAndInterleaved) {
  auto server = StartServer();
  const auto source = Tiny();
  auto trainer = OpenVersion(*server, *source);
  ASSERT_OK(trainer);
  std::vector<std::vector<std::byte>> rest;
  for (size_t i = 0; i < source->tensors().size(); ++i) {
    rest.push_back(ReadWhole(*source, i));
    const size_t half = rest[i].size() / 16 * 8;
    ASSERT_OK(trainer->push->Append(i, absl::MakeConstSpan(rest[i]).first(half)));
    rest[i].erase(rest[i].begin(), rest[i].begin() + half);
  }
  for (size_t i = source->tensors().size(); i-- > 0;) ASSERT_OK(trainer->push->Append(i, rest[i]));
  ASSERT_OK(trainer->push->Commit());
  auto pulled = PullVersion(*server);
  ASSERT_OK(pulled);
  ExpectEqual(*pulled, Expected(*source));
}

TEST(Pipelining, AWaitingWorkerHearsFromTheServiceAndOutlastsItsIdleTimeout) {
  ServerOptions server_options;
  server_options.limits.waiting_interval = std::chrono::milliseconds(50);
  auto server = StartServer(server_options);
  const auto source = Tiny();
  auto trainer = OpenVersion(*server, *source);
  ASSERT_OK(trainer);
  PullOptions options;
  options.version = 1;
  options.idle_timeout = std::chrono::milliseconds(1000);
  absl::Notification ended;
  absl::StatusOr<PulledVersion> pulled;
  std::thread worker([&] {
    pulled = PullVersion(*server, options);
    ended.Notify();
  });
  EXPECT_FALSE(ended.WaitForNotificationWithTimeout(absl::Milliseconds(2500)));  // longer than its idle timeout
  ASSERT_OK(PushAll(*trainer->push, *source));
  ASSERT_OK(trainer->push->Commit());
  worker.join();
  ASSERT_OK(pulled);
}

TEST(Transaction, AnAbortEndsThePullsThatStreamTheVersion) {
  auto server = StartServer();
  const auto source = Tiny();
  auto trainer = OpenVersion(*server, *source);
  ASSERT_OK(trainer);
  ASSERT_OK(PushAll(*trainer->push, *source, 0, 10));
  auto subscriber = Subscriber::Connect(To(*server));
  ASSERT_OK(subscriber);
  SignallingSink sink;
  absl::StatusOr<PullResult> result;
  PullOptions options;
  options.version = 1;
  std::thread worker([&] { result = (*subscriber)->Pull(options, sink); });
  EXPECT_TRUE(sink.first_done.WaitForNotificationWithTimeout(absl::Seconds(30)));
  ASSERT_OK(trainer->push->Abort("the loss is NaN"));
  worker.join();
  EXPECT_THAT(result, StatusIs(absl::StatusCode::kAborted, HasSubstr("the loss is NaN")));
  EXPECT_THAT(PullVersion(*server), StatusIs(absl::StatusCode::kNotFound));
}

TEST(Transaction, ATrainerThatVanishesAbortsItsVersionAndTheNextOneIsUnaffected) {
  auto server = StartServer();
  const auto source = Tiny();
  {
    auto trainer = OpenVersion(*server, *source);
    ASSERT_OK(trainer);
    ASSERT_OK(PushAll(*trainer->push, *source, 0, 10));
  }
  // The number is free again as soon as the service has noticed; until then it says why not.
  absl::StatusOr<VersionSummary> committed;
  const absl::Time deadline = absl::Now() + absl::Seconds(30);
  do {
    committed = PushVersion(*server, Publish(1), *source);
  } while (committed.status().code() == absl::StatusCode::kAlreadyExists && absl::Now() < deadline);
  ASSERT_OK(committed);
  ASSERT_OK(PullVersion(*server));
}

TEST(Transaction, ASilentTrainerIsDropped) {
  ServerOptions server_options;
  server_options.limits.push_idle_timeout = std::chrono::milliseconds(200);
  auto server = StartServer(server_options);
  const auto source = Tiny();
  auto trainer = OpenVersion(*server, *source);
  ASSERT_OK(trainer);
  auto subscriber = Subscriber::Connect(To(*server));
  ASSERT_OK(subscriber);
  // The pull ends when the service gives the push up.
  PullOptions options;
  options.version = 1;
  EXPECT_THAT((*subscriber)->Pull(options), StatusIs(absl::StatusCode::kAborted, HasSubstr("no message came")));
  EXPECT_THAT(trainer->push->Commit().status().code(), ::testing::Ne(absl::StatusCode::kOk));
}

TEST(Transaction, APushAbortedFromOutsideTellsItsTrainer) {
  auto server = StartServer();
  const auto source = Tiny();
  auto trainer = OpenVersion(*server, *source);
  ASSERT_OK(trainer);
  ASSERT_OK(trainer->publisher->Abort("default", 1, "operator says no"));
  absl::Status status = PushAll(*trainer->push, *source);
  if (status.ok()) status = trainer->push->Commit().status();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kAborted, HasSubstr("operator says no")));
}

// The service keeps a version for those who read it, and says of it what it said when it was committed.
TEST(Transaction, APullWhoseVersionIsRetiredMeanwhileIsWholeAllTheSame) {
  ServerOptions server_options;
  server_options.store.retain_versions = 1;
  auto server = StartServer(server_options);
  // More than lies ready on the way: the pull is not through before its sink goes on.
  constexpr size_t kBytes = 64 << 20;
  const auto push = [&](uint64_t version) {
    return PushIdentity(To(*server), version, {{"w", DType::kU8, {kBytes}}},
                        [&](size_t) { return std::vector<std::byte>(kBytes, std::byte(version)); });
  };
  ASSERT_OK(push(1));
  class Slow final : public TensorSink {
   public:
    explicit Slow(std::function<void()> meanwhile) : meanwhile_(std::move(meanwhile)) {}
    absl::Status Begin(const VersionSummary&, const std::vector<TensorPart>&) override { return absl::OkStatus(); }
    absl::StatusOr<absl::Span<std::byte>> Place(size_t) override {
      meanwhile_();
      return absl::MakeSpan(bytes);
    }
    absl::Status Done(size_t) override { return absl::OkStatus(); }
    std::vector<std::byte> bytes = std::vector<std::byte>(kBytes);

   private:
    const std::function<void()> meanwhile_;
  } sink([&] { ASSERT_OK(push(2)); });
  ChannelOptions wire = To(*server);
  wire.transport = Transport::kWire;
  auto subscriber = Subscriber::Connect(wire);
  ASSERT_OK(subscriber);
  const auto pulled = (*subscriber)->Pull({.version = 1}, sink);
  ASSERT_OK(pulled);
  EXPECT_EQ(pulled->version.version, 1u);
  EXPECT_EQ(pulled->version.state, VersionState::kCommitted);
  EXPECT_EQ(sink.bytes, std::vector<std::byte>(kBytes, std::byte{1}));
}

TEST(Selection, FiltersAndNames) {
  auto server = StartServer();
  const auto source = Tiny();
  ASSERT_OK(PushVersion(*server, Publish(1), *source));
  PullOptions options;
  options.filter = R"(layers\.0\.router)";
  auto pulled = PullVersion(*server, options);
  ASSERT_OK(pulled);
  EXPECT_EQ(pulled->tensors.size(), 3u);
  options.names = {"model.language_model.layers.0.router.scale"};
  pulled = PullVersion(*server, options);
  ASSERT_OK(pulled);
  ASSERT_EQ(pulled->tensors.size(), 1u);
  EXPECT_EQ(pulled->tensors[0].part.tensor.name, options.names[0]);
  options.filter = "matches nothing";
  options.names.clear();
  EXPECT_THAT(
      PullVersion(*server, options),
      StatusIs(absl::StatusCode::kNotFound, HasSubstr("filter 'matches nothing' selects none of its 165 tensors")));
  options.names = {"model.language_model.layers.0.router.scale"};
  EXPECT_THAT(PullVersion(*server, options), StatusIs(absl::StatusCode::kNotFound, HasSubstr("asked for by name")));
}

TEST(Options, ExcludedTensorsAreNotPublished) {
  auto server = StartServer();
  const auto source = Tiny();
  PublishOptions options = Publish(1);
  options.exclude_key_regex = ".*vision_tower.*";
  ASSERT_OK(PushVersion(*server, options, *source));
  auto pulled = PullVersion(*server);
  ASSERT_OK(pulled);
  for (const PulledTensor& tensor : pulled->tensors)
    EXPECT_THAT(tensor.part.tensor.name, ::testing::Not(HasSubstr("vision_tower")));
  EXPECT_LT(pulled->tensors.size(), 165u);
}

TEST(InProcess, ATrainerThatEmbedsTheServicePublishesWithoutANetworkHop) {
  auto server = StartServer();
  const auto source = Tiny();
  PublishOptions options;
  options.version = 1;
  auto push = server->OpenVersion(options, source->tensors());
  ASSERT_OK(push);
  for (size_t i = 0; i < source->tensors().size(); ++i) ASSERT_OK((*push)->Append(i, ReadWhole(*source, i)));
  ASSERT_OK((*push)->Commit());
  auto pulled = PullVersion(*server);
  ASSERT_OK(pulled);
  ExpectEqual(*pulled, Expected(*source));
}

TEST(InProcess, APushIsUsedAndMisusedAsOverTheWire) {
  auto server = StartServer();
  auto publisher = Publisher::Connect(To(*server));
  ASSERT_OK(publisher);
  const std::vector<TensorSpec> specs = {{"a", DType::kU8, {4}}, {"b", DType::kF32, {2}}};
  const std::vector<std::byte> eight(8);
  const absl::Span<const std::byte> bytes = eight;
  PublishOptions options;
  options.adapter = "identity";
  const auto open = [&](bool in_process) {
    ++options.version;
    auto push = in_process ? server->OpenVersion(options, specs) : (*publisher)->Open(options, specs);
    EXPECT_OK(push);
    return *std::move(push);
  };
  for (const bool in_process : {true, false}) {
    auto push = open(in_process);
    EXPECT_EQ(push->summary().version, options.version);
    EXPECT_EQ(push->summary().state, VersionState::kOpen);
    EXPECT_EQ(push->summary().tensors, 2u);
    EXPECT_EQ(push->shards(), WholeParts(specs));
    EXPECT_FALSE(push->digest_only(0) || push->unneeded(0) || push->unneeded(99));
    EXPECT_EQ(*push->IndexOf("b"), 1u);
    EXPECT_THAT(push->IndexOf("c"), StatusIs(absl::StatusCode::kNotFound, HasSubstr("tensor c was not declared")));
    EXPECT_THAT(push->Push("c", bytes), StatusIs(absl::StatusCode::kNotFound));
    EXPECT_THAT(push->Push("a", bytes),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("expected 4 bytes, got 8")));
    EXPECT_THAT(push->Append(2, bytes), StatusIs(absl::StatusCode::kOutOfRange, HasSubstr("there is no tensor 2")));
    EXPECT_THAT(push->Append(0, bytes), StatusIs(absl::StatusCode::kOutOfRange));
    EXPECT_THAT(push->Append(1, bytes.first(3)), StatusIs(absl::StatusCode::kInvalidArgument));
    EXPECT_OK(push->Append(0, bytes.first(3)));
    EXPECT_OK(push->Append(0, bytes.first(1)));  // goes on where the last one ended
    EXPECT_THAT(push->Append(0, bytes.first(1)), StatusIs(absl::StatusCode::kOutOfRange));
    EXPECT_THAT(push->Commit(), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("tensor b F32 [2]")));
    EXPECT_OK(push->Push("b", bytes));
    const auto committed = push->Commit();
    ASSERT_OK(committed);
    EXPECT_EQ(committed->state, VersionState::kCommitted);
    EXPECT_TRUE(committed->manifest_digest.has_value());
    const auto is_over = StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("is committed"));
    EXPECT_THAT(push->Append(0, {}), is_over);
    EXPECT_THAT(push->Commit(), is_over);
    EXPECT_THAT(push->Abort("late"), is_over);

    push = open(in_process);
    EXPECT_OK(push->Abort("changed my mind"));
    EXPECT_OK(push->Abort("again"));
    EXPECT_THAT(push->Append(0, bytes.first(1)),
                StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("was aborted: changed my mind")));
  }
}

TEST(InProcess, SeveralThreadsMakeOfLargeTensorsWhatOneMakes) {
  const std::string moe = "model.language_model.layers.0.moe.experts.";
  const std::vector<TensorSpec> native = {{moe + "gate_and_up_projs", DType::kF32, {5, 700, 1100}},
                                          {moe + "down_projs", DType::kBF16, {3, 2048, 1500}},
                                          {"lm_head.weight", DType::kF32, {6000, 1500}},  // one matrix of 36 MB
                                          {"model.norm.weight", DType::kF32, {3'000'000}}};
  std::mt19937_64 random(7);
  std::vector<std::vector<std::byte>> values;
  for (const TensorSpec& spec : native) {
    values.emplace_back(spec.ByteSize());
    for (std::byte& byte : values.back()) byte = static_cast<std::byte>(random());
  }
  PublishOptions options;
  options.version = 1;
  options.dtype = DType::kBF16;
  const auto publish = [&](int threads, size_t step) {
    ServerOptions server_options;
    server_options.convert_threads = threads;
    const auto server = StartServer(server_options);
    auto push = server->OpenVersion(options, native);
    EXPECT_OK(push);
    for (size_t i = 0; i < native.size(); ++i) {
      const absl::Span<const std::byte> bytes(values[i]);
      for (size_t at = 0; at < bytes.size(); at += step) {
        EXPECT_OK((*push)->Append(i, bytes.subspan(at, step)));
      }
    }
    auto committed = (*push)->Commit();
    EXPECT_OK(committed);
    return committed->manifest_digest;
  };
  const std::optional<uint64_t> alone = publish(1, 1 << 20);  // too little for others to help with
  EXPECT_EQ(publish(4, std::numeric_limits<size_t>::max()), alone);
  EXPECT_EQ(publish(3, 9'000'000), alone);
}

TEST(Watching, SeesEachVersionComeAndGo) {
  ServerOptions server_options;
  server_options.store.retain_versions = 1;
  auto server = StartServer(server_options);
  const auto source = Tiny();
  ASSERT_OK(PushVersion(*server, Publish(1), *source));
  auto subscriber = Subscriber::Connect(To(*server));
  ASSERT_OK(subscriber);
  absl::Notification watching;
  std::vector<std::pair<uint64_t, VersionState>> events;
  std::thread watcher([&] {
    EXPECT_OK((*subscriber)
                  ->Watch(
                      {},
                      [&](const VersionSummary& version) {
                        events.emplace_back(version.version, version.state);
                        if (events.size() == 1) watching.Notify();
                        return !(version.version == 1 && version.state == VersionState::kRetired);
                      },
                      std::chrono::seconds(30)));
  });
  EXPECT_TRUE(watching.WaitForNotificationWithTimeout(absl::Seconds(30)));
  ASSERT_OK(PushVersion(*server, Publish(2), *source));
  watcher.join();
  EXPECT_EQ(events.front(), std::make_pair(uint64_t{1}, VersionState::kCommitted));
  EXPECT_EQ(events.back(), std::make_pair(uint64_t{1}, VersionState::kRetired));
  // One that only watched is no worker once it has gone.
  auto inspector = Inspector::Connect(To(*server));
  ASSERT_OK(inspector);
  const absl::Time deadline = absl::Now() + absl::Seconds(30);
  while ((*inspector)->Workers()->workers_size() > 0 && absl::Now() < deadline) {
  }
  EXPECT_EQ((*inspector)->Workers()->workers_size(), 0);
}

TEST(Inspecting, ShowsVersionsWorkersAndTensors) {
  auto server = StartServer();
  const auto source = Tiny();
  ASSERT_OK(PushVersion(*server, Publish(1), *source));
  PullOptions pull;
  pull.worker = "worker-a";
  ASSERT_OK(PullVersion(*server, pull));
  auto inspector = Inspector::Connect(To(*server));
  ASSERT_OK(inspector);

  auto info = (*inspector)->ServerInfo();
  ASSERT_OK(info);
  EXPECT_THAT(info->adapters(), ::testing::Contains("gemma4_moe"));
  EXPECT_GT(info->resident_bytes(), 0u);

  auto versions = (*inspector)->Versions();
  ASSERT_OK(versions);
  ASSERT_EQ(versions->versions_size(), 1);
  EXPECT_EQ(versions->versions(0).converted_bytes(), versions->versions(0).bytes());
  EXPECT_EQ(versions->versions(0).received_bytes(), versions->versions(0).declared_bytes());
  EXPECT_EQ(info->memory_reserved_bytes(), versions->versions(0).bytes());

  auto workers = (*inspector)->Workers();
  ASSERT_OK(workers);
  ASSERT_EQ(workers->workers_size(), 1);
  EXPECT_EQ(workers->workers(0).name(), "worker-a");
  EXPECT_EQ(workers->workers(0).state(), v1::WORKER_STATE_COMPLETE);
  EXPECT_EQ(workers->workers(0).last_complete_version(), 1u);
  EXPECT_EQ(workers->workers(0).sent_bytes(), versions->versions(0).bytes());

  v1::DescribeVersionRequest describe;
  describe.set_model("default");
  describe.set_page_size(100);
  std::vector<std::string> names;
  do {
    auto page = (*inspector)->DescribeVersion(describe);
    ASSERT_OK(page);
    EXPECT_LE(page->entries_size(), 100);
    for (const v1::ManifestEntry& entry : page->entries()) names.push_back(entry.tensor().name());
    describe.set_page_token(page->next_page_token());
  } while (!describe.page_token().empty());
  EXPECT_EQ(names.size(), 165u);

  v1::DescribeTensorRequest tensor;
  tensor.set_model("default");
  tensor.set_name("model.language_model.layers.0.router.per_expert_scale");
  tensor.set_preview_elements(2);
  auto described = (*inspector)->DescribeTensor(tensor);
  ASSERT_OK(described);
  EXPECT_THAT(described->preview(), ::testing::ElementsAre(1.0, 1.0));
  EXPECT_EQ(described->statistics().min(), 1.0);
  EXPECT_EQ(described->statistics().mean(), 1.0);
  EXPECT_EQ(described->statistics().nan_count(), 0u);
  tensor.set_skip_statistics(true);
  EXPECT_FALSE((*inspector)->DescribeTensor(tensor)->has_statistics());
}

TEST(Starting, RefusesBadOptions) {
  auto start = [](auto change) {
    ServerOptions options;
    options.listen = "127.0.0.1:0";
    change(options);
    return RefitServer::Start(options).status();
  };
  using absl::StatusCode;
  EXPECT_THAT(start([](auto& o) { o.listen = "0.0.0.0:0"; }),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("plain text")));
  EXPECT_THAT(start([](auto& o) { o.store.chunk_bytes = 100; }),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("chunk-bytes must be a multiple of 64")));
  EXPECT_THAT(start([](auto& o) { o.store.chunk_bytes = 4 << 20; }), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(start([](auto& o) { o.limits.max_message_bytes = 1; }), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(start([](auto& o) { o.listen = "127.0.0.1:notaport"; }),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("notaport")));
  auto first = StartServer();
  EXPECT_THAT(start([&](auto& o) { o.listen = first->address(); }),
              StatusIs(StatusCode::kUnavailable, HasSubstr(first->address())));
}

TEST(Limits, PullsAndPushesAtATime) {
  ServerOptions server_options;
  server_options.limits.max_pulls = 1;
  server_options.limits.max_pushes = 1;
  auto server = StartServer(server_options);
  const auto source = Tiny();
  auto trainer = OpenVersion(*server, *source);
  ASSERT_OK(trainer);
  PublishOptions other = Publish(1);
  other.model = "other";
  EXPECT_THAT(trainer->publisher->Open(other, source->tensors()), StatusIs(absl::StatusCode::kResourceExhausted));

  ASSERT_OK(PushAll(*trainer->push, *source, 0, 1));
  auto subscriber = Subscriber::Connect(To(*server));
  ASSERT_OK(subscriber);
  SignallingSink sink;
  absl::StatusOr<PullResult> result;
  PullOptions options;
  options.version = 1;
  std::thread worker([&] { result = (*subscriber)->Pull(options, sink); });
  EXPECT_TRUE(sink.first_done.WaitForNotificationWithTimeout(absl::Seconds(30)));
  EXPECT_THAT(PullVersion(*server, options), StatusIs(absl::StatusCode::kResourceExhausted));
  (*subscriber)->Cancel();
  worker.join();
  EXPECT_THAT(result, StatusIs(absl::StatusCode::kCancelled));
}

}  // namespace
}  // namespace refit
