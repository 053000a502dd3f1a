// Bad input over the wire, one row a case: each gives the right code and a message that names what is wrong; the
// service keeps serving, its memory returns to where it was, and nothing becomes visible that was not committed whole.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/net/byte_buffer.h"
#include "common/net/channel.h"
#include "common/net/raw_call.h"
#include "common/net/received_message.h"
#include "common/net/status.h"
#include "common/wire/digest.h"
#include "refit/publisher.h"
#include "refit/server.h"
#include "refit/subscriber.h"
#include "refit/v1/inspect.grpc.pb.h"
#include "refit/v1/pull.grpc.pb.h"
#include "refit/v1/push.grpc.pb.h"
#include "tests/support/eventually.h"
#include "tests/support/status_matchers.h"

namespace refit {
namespace {

using absl::StatusCode;
using ::testing::HasSubstr;

constexpr std::chrono::seconds kPatience{30};
constexpr uint64_t kChunk = 4096;
constexpr uint64_t kCommitted = 10;  // the version that is there before each case

absl::Span<const std::byte> AsBytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

grpc::ByteBuffer RawMessage(const std::string& bytes) {
  const grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}

// The messages of a push, built step by step.
class Script {
 public:
  Script& Raw(const std::string& bytes) {
    messages_.push_back(RawMessage(bytes));
    return *this;
  }
  Script& Request(const v1::PushRequest& request) {
    messages_.push_back(Serialize(request));
    return *this;
  }
  Script& Open(uint64_t version = 20) {
    return OpenWith([=](v1::OpenVersion& open) { open.set_version(version); });
  }
  template <typename Change>
  Script& OpenWith(Change change) {
    v1::PushRequest request;
    request.mutable_open()->set_model("m");
    request.mutable_open()->set_version(20);
    change(*request.mutable_open());
    return Request(request);
  }
  Script& Declare(const std::vector<TensorSpec>& tensors, bool last = true) {
    v1::PushRequest request;
    request.mutable_declare()->set_last(last);
    for (const TensorSpec& spec : tensors) {
      v1::TensorSpec& tensor = *request.mutable_declare()->add_tensors()->mutable_tensor();
      tensor.set_name(spec.name);
      tensor.set_dtype(static_cast<v1::DType>(spec.dtype));
      for (const int64_t dimension : spec.shape) tensor.add_shape(dimension);
    }
    return Request(request);
  }
  template <typename Change>
  Script& DeclareWith(Change change) {
    v1::PushRequest request;
    request.mutable_declare()->set_last(true);
    v1::DeclaredTensor& tensor = *request.mutable_declare()->add_tensors();
    tensor.mutable_tensor()->set_name("w");
    tensor.mutable_tensor()->set_dtype(v1::DTYPE_F32);
    tensor.mutable_tensor()->add_shape(4);
    change(tensor);
    return Request(request);
  }
  // A chunk with right digests, then changed.
  template <typename Change>
  Script& ChunkWith(uint64_t tensor, uint64_t offset, const std::string& payload, Change change) {
    ChunkHeader header;
    header.tensor = tensor;
    header.offset = offset;
    header.digest = DigestBytes(AsBytes(payload));
    change(header);
    messages_.push_back(CopyChunkMessage(header, AsBytes(payload)));
    return *this;
  }
  Script& Chunk(uint64_t tensor, uint64_t offset, const std::string& payload) {
    return ChunkWith(tensor, offset, payload, [](ChunkHeader&) {});
  }
  // The whole of a tensor that fits in one chunk.
  Script& Whole(uint64_t tensor, const std::string& payload) {
    return ChunkWith(tensor, 0, payload,
                     [&](ChunkHeader& header) { header.tensor_digest = DigestTensor(AsBytes(payload), kChunk); });
  }
  Script& Commit() {
    v1::PushRequest request;
    request.mutable_commit();
    return Request(request);
  }
  Script& Abort() {
    v1::PushRequest request;
    request.mutable_abort();
    return Request(request);
  }

  const std::vector<grpc::ByteBuffer>& messages() const { return messages_; }

 private:
  std::vector<grpc::ByteBuffer> messages_;
};

void SetBox(v1::DeclaredTensor& tensor, int64_t offset, int64_t size) {
  tensor.mutable_box()->add_offsets(offset);
  tensor.mutable_box()->add_sizes(size);
}

const std::string kBytes16(16, 'x');
const TensorSpec kW{"w", DType::kF32, {4}};         // 16 bytes
const TensorSpec kBig{"big", DType::kF32, {4096}};  // 16 KiB: four chunks
const std::string kBlock(kChunk, 'b');

Script Opened() { return Script().Open().Declare({kW, kBig}); }

std::string BytesOfMessage(const grpc::ByteBuffer& buffer) {
  std::string bytes;
  ReceivedMessage(buffer).ForEachRun(
      0, [&](absl::Span<const std::byte> run) { bytes.append(reinterpret_cast<const char*>(run.data()), run.size()); });
  return bytes;
}

class Service : public ::testing::Test {
 protected:
  void SetUp() override {
    ServerOptions options;
    options.listen = "127.0.0.1:0";
    options.store.chunk_bytes = kChunk;
    options.store.memory_budget_bytes = 1 << 20;
    options.store.retain_versions = 1;
    options.limits.max_tensors_per_version = 8;
    options.limits.max_name_bytes = 100;
    auto server = RefitServer::Start(options);
    ASSERT_OK(server);
    server_ = *std::move(server);
    ChannelOptions channel;
    channel.address = server_->address();
    auto connected = Connect(channel);
    ASSERT_OK(connected);
    channel_ = *connected;
    PublishGood(kCommitted - 1);
    PublishGood(kCommitted);
    reserved_ = Info().memory_reserved_bytes();
  }

  void PublishGood(uint64_t version) {
    ChannelOptions channel;
    channel.address = server_->address();
    auto publisher = Publisher::Connect(channel);
    ASSERT_OK(publisher);
    PublishOptions options;
    options.model = "m";
    options.version = version;
    auto push = (*publisher)->Open(options, {kW});
    ASSERT_OK(push);
    ASSERT_OK((*push)->Push("w", AsBytes(kBytes16)));
    ASSERT_OK((*push)->Commit());
  }

  // Plays the script and closes; the final status.
  absl::Status Play(const Script& script) {
    auto call = RawCall::Start(channel_, "/refit.v1.PushService/Push");
    for (const grpc::ByteBuffer& message : script.messages()) {
      if (!call->Write(message, kPatience).ok()) break;
    }
    (void)call->WritesDone(kPatience);
    while (true) {
      auto answer = call->Read(kPatience);
      if (!answer.ok() || !answer->has_value()) break;
    }
    return call->Finish(kPatience);
  }

  v1::GetServerInfoResponse Info() {
    grpc::ClientContext context;
    v1::GetServerInfoResponse response;
    EXPECT_OK(FromGrpc(v1::InspectService::NewStub(channel_)->GetServerInfo(&context, {}, &response)));
    return response;
  }

  // A healthy client is served, memory is back, and only what was committed is to be seen.
  void ExpectUnharmed() {
    // A message that is too large is refused by gRPC itself, which answers before the service has heard of it.
    EXPECT_TRUE(Eventually([&] { return Info().open_pushes() == 0; }));
    ChannelOptions channel;
    channel.address = server_->address();
    auto subscriber = Subscriber::Connect(channel);
    ASSERT_OK(subscriber);
    PullOptions options;
    options.model = "m";
    auto pulled = (*subscriber)->Pull(options);
    ASSERT_OK(pulled);
    EXPECT_EQ(pulled->result.version.version, kCommitted);
    ASSERT_EQ(pulled->tensors.size(), 1u);
    EXPECT_EQ(Info().memory_reserved_bytes(), reserved_);
    grpc::ClientContext context;
    v1::ListVersionsResponse versions;
    ASSERT_OK(FromGrpc(v1::InspectService::NewStub(channel_)->ListVersions(&context, {}, &versions)));
    for (const v1::VersionSummary& version : versions.versions()) {
      if (version.version() > kCommitted) {
        EXPECT_EQ(version.state(), v1::VERSION_STATE_ABORTED) << version.version();
      }
    }
  }

  std::unique_ptr<RefitServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  uint64_t reserved_ = 0;
};

struct PushCase {
  const char* name;
  Script script;
  StatusCode code;
  std::vector<std::string> message;  // parts that it must have
};

std::vector<PushCase> PushCases() {
  auto tensor = [](auto change) {
    return Script().Open().DeclareWith([=](v1::DeclaredTensor& t) { change(*t.mutable_tensor()); });
  };
  const Script opened = Opened();
  auto with = [&](auto change) {
    Script script = opened;
    change(script);
    return script;
  };
  std::string lying = BytesOfMessage(Script().Chunk(0, 0, kBytes16).messages()[0]);
  lying[1] = static_cast<char>(lying[1] + 5);  // the chunk claims to be longer than the message
  return {
      {"VersionZero", Script().Open(0).Declare({kW}), StatusCode::kInvalidArgument, {"begin at 1"}},
      {"NoModel",
       Script().OpenWith([](auto& o) { o.set_model(""); }).Declare({kW}),
       StatusCode::kInvalidArgument,
       {"model name"}},
      {"LongModel",
       Script().OpenWith([](auto& o) { o.set_model(std::string(300, 'm')); }).Declare({kW}),
       StatusCode::kInvalidArgument,
       {"model name", "300"}},
      {"UnknownAdapter",
       Script().OpenWith([](auto& o) { o.set_adapter("llama"); }).Declare({kW}),
       StatusCode::kInvalidArgument,
       {"llama", "gemma4_moe"}},
      {"UnknownCast",
       Script().OpenWith([](auto& o) { o.set_dtype(static_cast<v1::DType>(99)); }).Declare({kW}),
       StatusCode::kInvalidArgument,
       {"99"}},
      {"CastToInteger",
       Script().OpenWith([](auto& o) { o.set_dtype(v1::DTYPE_I64); }).Declare({kW}),
       StatusCode::kInvalidArgument,
       {"I64", "BF16"}},
      {"BaseVersion",
       Script().OpenWith([](auto& o) { o.set_base_version(3); }).Declare({kW}),
       StatusCode::kInvalidArgument,
       {"base_version"}},
      {"UnknownLayout",
       Script().OpenWith([](auto& o) { o.set_layout(static_cast<v1::Layout>(7)); }).Declare({kW}),
       StatusCode::kInvalidArgument,
       {"layout 7"}},
      {"InvalidRegex",
       Script().OpenWith([](auto& o) { o.set_exclude_key_regex("(unclosed"); }).Declare({kW}),
       StatusCode::kInvalidArgument,
       {"(unclosed"}},
      {"RegexWithLookahead",
       Script().OpenWith([](auto& o) { o.set_exclude_key_regex("(?!a)b"); }).Declare({kW}),
       StatusCode::kInvalidArgument,
       {"(?!a)b"}},
      {"HugeRegex",
       Script().OpenWith([](auto& o) { o.set_exclude_key_regex(std::string(5000, 'a')); }).Declare({kW}),
       StatusCode::kResourceExhausted,
       {"4096"}},
      {"SecondOpen", Script().Open().Open(), StatusCode::kFailedPrecondition, {"second open"}},
      {"DeclareFirst", Script().Declare({kW}), StatusCode::kFailedPrecondition, {"declare before open"}},
      {"ChunkFirst", Script().Whole(0, kBytes16), StatusCode::kFailedPrecondition, {"chunk before"}},
      {"ChunkBeforeLastDeclare",
       Script().Open().Declare({kW}, false).Whole(0, kBytes16),
       StatusCode::kFailedPrecondition,
       {"chunk before"}},
      {"CommitFirst", Script().Open().Commit(), StatusCode::kFailedPrecondition, {"commit before"}},
      {"AbortFirst", Script().Open().Abort(), StatusCode::kFailedPrecondition, {"abort before"}},
      {"DeclareAfterLast",
       with([](Script& s) { s.Declare({kW}); }),
       StatusCode::kFailedPrecondition,
       {"after the last declare"}},
      {"EmptyRequest", with([](Script& s) { s.Request({}); }), StatusCode::kInvalidArgument, {"PushRequest without"}},
      {"Garbage",
       with([](Script& s) { s.Raw("\xff\xff\xff\xff garbage"); }),
       StatusCode::kInvalidArgument,
       {"PushRequest"}},
      {"ClosedBeforeOpen", Script(), StatusCode::kFailedPrecondition, {"ended before commit"}},
      {"ClosedBeforeCommit",
       with([](Script& s) { s.Whole(0, kBytes16); }),
       StatusCode::kFailedPrecondition,
       {"m/20", "ended before commit"}},

      {"EmptyName", tensor([](auto& t) { t.set_name(""); }), StatusCode::kInvalidArgument, {"name"}},
      {"LongName", tensor([](auto& t) { t.set_name(std::string(101, 'n')); }), StatusCode::kResourceExhausted, {"100"}},
      {"NameWithNewline", tensor([](auto& t) { t.set_name("a\nb"); }), StatusCode::kInvalidArgument, {"a\\x0ab"}},
      {"ExtraState",
       tensor([](auto& t) { t.set_name("layers.0._extra_state"); }),
       StatusCode::kInvalidArgument,
       {"layers.0._extra_state", "exclude_key_regex", ".*_extra_state.*"}},
      {"NumberedExtraState",
       tensor([](auto& t) { t.set_name("_extra_state12"); }),
       StatusCode::kInvalidArgument,
       {"_extra_state12", "exclude_key_regex"}},
      {"NoDType",
       tensor([](auto& t) { t.set_dtype(v1::DTYPE_UNSPECIFIED); }),
       StatusCode::kInvalidArgument,
       {"w", "dtype"}},
      {"UnknownDType",
       tensor([](auto& t) { t.set_dtype(static_cast<v1::DType>(77)); }),
       StatusCode::kInvalidArgument,
       {"w", "77"}},
      {"NegativeDimension", tensor([](auto& t) { t.add_shape(-1); }), StatusCode::kInvalidArgument, {"w", "-1"}},
      {"OverflowingShape", tensor([](auto& t) { t.add_shape(int64_t{1} << 62); }), StatusCode::kInvalidArgument, {"w"}},
      {"OverflowByTheCast",
       Script().OpenWith([](auto& o) { o.set_dtype(v1::DTYPE_F64); }).DeclareWith([](v1::DeclaredTensor& t) {
         t.mutable_tensor()->set_dtype(v1::DTYPE_BF16);
         t.mutable_tensor()->set_shape(0, (int64_t{1} << 61) + 1);  // as F64 2^64 + 8 bytes
       }),
       StatusCode::kInvalidArgument,
       {"w", "2^63-1 bytes"}},
      {"OverflowHiddenByAZero",
       tensor([](auto& t) {
         t.add_shape(int64_t{1} << 62);
         t.add_shape(0);
       }),
       StatusCode::kInvalidArgument,
       {"w"}},
      {"RankTooHigh",
       tensor([](auto& t) {
         for (int i = 0; i < 20; ++i) t.add_shape(1);
       }),
       StatusCode::kResourceExhausted,
       {"w", "16"}},
      {"BoxWithoutSizes",
       Script().Open().DeclareWith([](auto& t) { t.mutable_box()->add_offsets(0); }),
       StatusCode::kInvalidArgument,
       {"w", "box", "expected 1 of each"}},
      {"BoxOutOfBounds",
       Script().Open().DeclareWith([](auto& t) { SetBox(t, 2, 3); }),
       StatusCode::kInvalidArgument,
       {"w", "out of bounds", "[4]"}},
      {"BoxWithNegativeOffset",
       Script().Open().DeclareWith([](auto& t) { SetBox(t, -1, 3); }),
       StatusCode::kInvalidArgument,
       {"w", "-1"}},
      {"BoxBeyondAllNumbers",
       Script().Open().DeclareWith([](auto& t) { SetBox(t, INT64_MAX, INT64_MAX); }),
       StatusCode::kInvalidArgument,
       {"w", "out of bounds"}},
      {"BoxThatIsNotAll",
       Script().Open().DeclareWith([](auto& t) { SetBox(t, 0, 3); }),
       StatusCode::kInvalidArgument,
       {"w", "no rank of 1 holds box [3:4]"}},
      {"EmptyBoxOfTheOnlyRank",
       Script().Open().DeclareWith([](auto& t) { SetBox(t, 4, 0); }),
       StatusCode::kInvalidArgument,
       {"w", "no rank of 1 holds box [0:4]"}},
      {"RankThatIsNone",
       Script().OpenWith([](auto& open) { open.set_rank(1); }).Declare({kW}),
       StatusCode::kInvalidArgument,
       {"rank 1 of 1"}},
      {"TooManyRanks",
       Script().OpenWith([](auto& open) { open.set_world(1 << 30); }),
       StatusCode::kResourceExhausted,
       {"1073741824 ranks"}},
      {"ChunkBeforeAllRanksHaveCome",
       Script().OpenWith([](auto& open) { open.set_world(2); }).Declare({kW}).Whole(0, kBytes16),
       StatusCode::kFailedPrecondition,
       {"before all 2 ranks"}},
      {"CommitBeforeAllRanksHaveCome",
       Script().OpenWith([](auto& open) { open.set_world(2); }).Declare({kW}).Commit(),
       StatusCode::kFailedPrecondition,
       {"before all ranks"}},
      {"DigestAloneOfAShardThatNobodyElseSends",
       Opened().ChunkWith(0, 0, "", [](auto& header) { header.tensor_digest = 7; }),
       StatusCode::kInvalidArgument,
       {"w", "empty chunk"}},
      {"DeclaredTwice", Script().Open().Declare({kW, kW}), StatusCode::kInvalidArgument, {"w"}},
      {"TwoOutputsOfOneName",
       Script().Open().Declare(
           {{"layers.0.router.scale", DType::kF32, {4}}, {"layers.0.moe.gate.scale", DType::kF32, {4}}}),
       StatusCode::kInvalidArgument,
       {"layers.0.router.scale", "layers.0.moe.gate.scale"}},
      {"OneDimensionalExperts",
       Script().Open().Declare({{"layers.0.moe.experts.down_projs", DType::kF32, {4}}}),
       StatusCode::kInvalidArgument,
       {"layers.0.moe.experts.down_projs", "[4]"}},
      {"LayerlessExperts",
       Script().Open().Declare({{"x.moe.experts.down_projs", DType::kF32, {2, 2, 2}}}),
       StatusCode::kInvalidArgument,
       {"x.moe.experts.down_projs", "layers"}},
      {"LargerThanTheBudget",
       Script().Open().Declare({{"w", DType::kF32, {1 << 20}}}),
       StatusCode::kResourceExhausted,
       {"m/20", "4194304"}},
      {"SumBeyond64Bits",
       Script().Open().Declare({{"a", DType::kF32, {int64_t{1} << 60}},
                                {"b", DType::kF32, {int64_t{1} << 60}},
                                {"c", DType::kF32, {int64_t{1} << 60}},
                                {"d", DType::kF32, {int64_t{1} << 60}},
                                {"e", DType::kF32, {4}}}),
       StatusCode::kResourceExhausted,
       {"m/20"}},
      {"PetabytesDeclared",
       Script().Open().Declare({{"w", DType::kF32, {int64_t{1} << 50}}}),
       StatusCode::kResourceExhausted,
       {"m/20"}},
      {"TooManyTensors",
       Script()
           .Open()
           .Declare({{"a", DType::kF32, {1}},
                     {"b", DType::kF32, {1}},
                     {"c", DType::kF32, {1}},
                     {"d", DType::kF32, {1}},
                     {"e", DType::kF32, {1}}},
                    false)
           .Declare(
               {{"f", DType::kF32, {1}}, {"g", DType::kF32, {1}}, {"h", DType::kF32, {1}}, {"i", DType::kF32, {1}}}),
       StatusCode::kResourceExhausted,
       {"8"}},

      {"UndeclaredTensor",
       with([](Script& s) { s.Whole(9, kBytes16); }),
       StatusCode::kInvalidArgument,
       {"tensor number 9", "2 tensors"}},
      {"Gap",
       with([](Script& s) { s.Chunk(1, 0, kBlock).Chunk(1, 2 * kChunk, kBlock); }),
       StatusCode::kOutOfRange,
       {"big", "4096", "gap"}},
      {"OutOfOrder",
       with([](Script& s) { s.Chunk(1, kChunk, kBlock).Chunk(1, 0, kBlock); }),
       StatusCode::kOutOfRange,
       {"big", "offset 0"}},
      {"Overlap",
       with([](Script& s) { s.Chunk(1, 0, kBlock).Chunk(1, 1024, kBlock); }),
       StatusCode::kOutOfRange,
       {"big", "overlap"}},
      {"BeyondTheEnd",
       with([](Script& s) { s.Whole(0, kBytes16 + kBytes16); }),
       StatusCode::kOutOfRange,
       {"w", "16 bytes"}},
      {"TensorSentTwice",
       with([](Script& s) { s.Whole(0, kBytes16).Whole(0, kBytes16); }),
       StatusCode::kOutOfRange,
       {"w", "came already"}},
      {"HalfAnElement",
       with([](Script& s) { s.Chunk(0, 0, "abc"); }),
       StatusCode::kInvalidArgument,
       {"w", "whole number of elements"}},
      {"ChunkTooLong",
       with([](Script& s) { s.Chunk(1, 0, kBlock + kBytes16); }),
       StatusCode::kInvalidArgument,
       {"big", "at most 4096"}},
      {"EmptyChunk", with([](Script& s) { s.Chunk(1, 0, ""); }), StatusCode::kInvalidArgument, {"big", "empty chunk"}},
      {"WrongChunkDigest",
       with([](Script& s) { s.ChunkWith(1, 0, kBlock, [](ChunkHeader& h) { h.digest ^= 1; }); }),
       StatusCode::kDataLoss,
       {"big", "offset 0", "digest"}},
      {"WrongTensorDigest",
       with([](Script& s) { s.ChunkWith(0, 0, kBytes16, [](ChunkHeader& h) { h.tensor_digest = 1; }); }),
       StatusCode::kDataLoss,
       {"w", "digest"}},
      {"NoTensorDigest",
       with([](Script& s) { s.Chunk(0, 0, kBytes16); }),
       StatusCode::kInvalidArgument,
       {"w", "no tensor digest"}},
      {"EarlyTensorDigest",
       with([](Script& s) { s.ChunkWith(1, 0, kBlock, [](ChunkHeader& h) { h.tensor_digest = 1; }); }),
       StatusCode::kInvalidArgument,
       {"big", "does not end"}},
      {"UnknownEncoding",
       with([](Script& s) { s.ChunkWith(1, 0, kBlock, [](ChunkHeader& h) { h.encoding = 5; }); }),
       StatusCode::kInvalidArgument,
       {"big", "encoding 5"}},
      {"ContradictingSize",
       with([](Script& s) { s.ChunkWith(1, 0, kBlock, [](ChunkHeader& h) { h.decoded_bytes = 5; }); }),
       StatusCode::kInvalidArgument,
       {"big", "decodes to 5"}},
      {"OffsetNearOverflow",
       with([](Script& s) { s.Chunk(1, ~uint64_t{0} - 8, kBlock); }),
       StatusCode::kOutOfRange,
       {"big"}},
      {"LengthLies", with([&](Script& s) { s.Raw(lying); }), StatusCode::kInvalidArgument, {}},
      {"MissingTensor",
       with([](Script& s) { s.Whole(0, kBytes16).Commit(); }),
       StatusCode::kFailedPrecondition,
       {"big", "0 of 16384"}},
      {"IncompleteTensor",
       with([](Script& s) { s.Whole(0, kBytes16).Chunk(1, 0, kBlock).Commit(); }),
       StatusCode::kFailedPrecondition,
       {"big", "4096 of 16384"}},
      {"CutMidTensor",
       with([](Script& s) { s.Chunk(1, 0, kBlock); }),
       StatusCode::kFailedPrecondition,
       {"ended before commit"}},
      {"ChunkAfterAbort",
       with([](Script& s) { s.Abort().Whole(0, kBytes16); }),
       StatusCode::kFailedPrecondition,
       {"after the end"}},
      {"NumberReused", Script().Open(kCommitted).Declare({kW}), StatusCode::kAlreadyExists, {"m/10", "larger"}},
      {"NumberGoesBack",
       Script().Open(3).Declare({kW}),
       StatusCode::kFailedPrecondition,
       {"m/3", "newest committed version 10"}},
      {"MessageTooLarge",
       with([](Script& s) { s.Raw(std::string(5 << 20, 'x')); }),
       StatusCode::kResourceExhausted,
       {"larger than max"}},
  };
}

class BadPush : public Service, public ::testing::WithParamInterface<size_t> {};

TEST_P(BadPush, IsRefusedAndHarmsNothing) {
  const PushCase bad = PushCases()[GetParam()];
  const absl::Status status = Play(bad.script);
  EXPECT_EQ(status.code(), bad.code) << status;
  for (const std::string& part : bad.message) EXPECT_THAT(std::string(status.message()), HasSubstr(part));
  ExpectUnharmed();
}

INSTANTIATE_TEST_SUITE_P(Wire, BadPush, ::testing::Range(size_t{0}, PushCases().size()),
                         [](const auto& row) { return std::string(PushCases()[row.param].name); });

struct PullCase {
  const char* name;
  void (*change)(v1::PullRequest&);
  StatusCode code;
  std::vector<std::string> message;
};

const PullCase kPullCases[] = {
    {"UnknownModel", [](v1::PullRequest& r) { r.set_model("nobody"); }, StatusCode::kNotFound, {"nobody"}},
    {"UnknownVersion",
     [](v1::PullRequest& r) { r.mutable_version()->set_number(99); },
     StatusCode::kNotFound,
     {"99", "it has 10"}},
    {"RetiredVersion",
     [](v1::PullRequest& r) { r.mutable_version()->set_number(9); },
     StatusCode::kFailedPrecondition,
     {"m/9", "retired"}},
    {"UnknownTensor", [](v1::PullRequest& r) { r.add_names("v"); }, StatusCode::kNotFound, {"'v'"}},
    {"InvalidFilter", [](v1::PullRequest& r) { r.set_filter("["); }, StatusCode::kInvalidArgument, {"["}},
    {"CursorBeyondTheTensors",
     [](v1::PullRequest& r) {
       r.mutable_version()->set_number(10);
       r.mutable_resume()->set_tensor(2);
     },
     StatusCode::kInvalidArgument,
     {"tensor 2"}},
    {"CursorPastTheEnd",
     [](v1::PullRequest& r) {
       r.mutable_version()->set_number(10);
       r.mutable_resume()->set_tensor(1);
       r.mutable_resume()->set_offset(4);
     },
     StatusCode::kInvalidArgument,
     {"tensor 1", "offset 4"}},
    {"CursorWithinAChunk",
     [](v1::PullRequest& r) {
       r.mutable_version()->set_number(10);
       r.mutable_resume()->set_offset(4);
     },
     StatusCode::kInvalidArgument,
     {"w", "multiple of 4096"}},
    {"CursorBeyondItsTensor",
     [](v1::PullRequest& r) {
       r.mutable_version()->set_number(10);
       r.mutable_resume()->set_offset(8192);
     },
     StatusCode::kInvalidArgument,
     {"w"}},
    {"CursorWithinTheNewest",
     [](v1::PullRequest& r) {
       r.mutable_version()->set_latest_committed(true);
       r.mutable_resume()->set_tensor(1);
     },
     StatusCode::kInvalidArgument,
     {"resume", "by the number"}},
    {"CursorWithinAnyVersion",
     [](v1::PullRequest& r) { r.mutable_resume()->set_tensor(1); },
     StatusCode::kInvalidArgument,
     {"resume", "by the number"}},
    {"UnknownLayout",
     [](v1::PullRequest& r) { r.set_layout(static_cast<v1::Layout>(4)); },
     StatusCode::kInvalidArgument,
     {"layout 4"}},
};

class BadPull : public Service, public ::testing::WithParamInterface<PullCase> {};

TEST_P(BadPull, IsRefused) {
  grpc::ClientContext context;
  v1::PullRequest request;
  request.set_model("m");
  GetParam().change(request);
  auto reader = v1::PullService::NewStub(channel_)->Pull(&context, request);
  v1::PullResponse response;
  EXPECT_FALSE(reader->Read(&response));
  const absl::Status status = FromGrpc(reader->Finish());
  EXPECT_EQ(status.code(), GetParam().code) << status;
  for (const std::string& part : GetParam().message) EXPECT_THAT(std::string(status.message()), HasSubstr(part));
  ExpectUnharmed();
}

INSTANTIATE_TEST_SUITE_P(Wire, BadPull, ::testing::ValuesIn(kPullCases),
                         [](const auto& row) { return std::string(row.param.name); });

using BadRequest = Service;

TEST_F(BadRequest, GarbageInsteadOfAPullRequest) {
  auto call = RawCall::Start(channel_, "/refit.v1.PullService/Pull");
  ASSERT_OK(call->Write(RawMessage("\xff\xff\xff"), kPatience));
  (void)call->WritesDone(kPatience);
  EXPECT_THAT(call->Finish(kPatience), StatusIs(StatusCode::kInvalidArgument));
  ExpectUnharmed();
}

TEST_F(BadRequest, InvalidUtf8InAName) {
  // What protobuf's own serialiser would refuse to write.
  v1::PushRequest request;
  request.mutable_declare()->set_last(true);
  request.mutable_declare()->add_tensors()->mutable_tensor()->set_name("AAAA");
  std::string bytes = request.SerializeAsString();
  bytes.replace(bytes.find("AAAA"), 4, "\xc3\x28\xff\xfe");
  EXPECT_THAT(Play(Script().Open().Raw(bytes)), StatusIs(StatusCode::kInvalidArgument));
  ExpectUnharmed();
}

TEST_F(BadRequest, AChunkAfterTheCommitFailsButTheVersionStands) {
  const Script script = Script().Open(11).Declare({kW}).Whole(0, kBytes16).Commit().Whole(0, kBytes16);
  EXPECT_THAT(Play(script),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("after the end of the push of version m/11")));
  EXPECT_EQ(Info().memory_reserved_bytes(), reserved_);
}

TEST_F(BadRequest, TwoPushesOfOneVersion) {
  auto first = RawCall::Start(channel_, "/refit.v1.PushService/Push");
  const Script opened = Opened();
  for (const grpc::ByteBuffer& message : opened.messages()) ASSERT_OK(first->Write(message, kPatience));
  ASSERT_OK(first->Read(kPatience));  // opened
  EXPECT_THAT(Play(Opened()), StatusIs(StatusCode::kAlreadyExists, HasSubstr("m/20 is being pushed already")));
  EXPECT_THAT(Play(Script().Open(21).Declare({kW})),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("m/20 is open")));
  // The first one is unharmed.
  const std::vector<grpc::ByteBuffer> rest = Script().Whole(0, kBytes16).Abort().messages();
  for (const grpc::ByteBuffer& message : rest) ASSERT_OK(first->Write(message, kPatience));
  ASSERT_OK(first->WritesDone(kPatience));
  ASSERT_OK(first->Read(kPatience));
  EXPECT_OK(first->Finish(kPatience));
  ExpectUnharmed();
}

TEST_F(BadRequest, APullOfAnAbortedVersion) {
  EXPECT_THAT(Play(Opened()), StatusIs(StatusCode::kFailedPrecondition));
  grpc::ClientContext context;
  v1::PullRequest request;
  request.set_model("m");
  request.mutable_version()->set_number(20);
  auto reader = v1::PullService::NewStub(channel_)->Pull(&context, request);
  v1::PullResponse response;
  EXPECT_FALSE(reader->Read(&response));
  EXPECT_THAT(FromGrpc(reader->Finish()), StatusIs(StatusCode::kFailedPrecondition, HasSubstr("m/20 is aborted")));
}

TEST_F(BadRequest, InspectAndManifestAndAbort) {
  auto inspect = v1::InspectService::NewStub(channel_);
  auto pull = v1::PullService::NewStub(channel_);
  auto push = v1::PushService::NewStub(channel_);
  auto describe_version = [&](auto change) {
    grpc::ClientContext context;
    v1::DescribeVersionRequest request;
    v1::DescribeVersionResponse response;
    request.set_model("m");
    change(request);
    return FromGrpc(inspect->DescribeVersion(&context, request, &response));
  };
  auto describe_tensor = [&](auto change) {
    grpc::ClientContext context;
    v1::DescribeTensorRequest request;
    v1::DescribeTensorResponse response;
    request.set_model("m");
    request.set_name("w");
    change(request);
    return FromGrpc(inspect->DescribeTensor(&context, request, &response));
  };
  auto manifest = [&](auto change) {
    grpc::ClientContext context;
    v1::GetManifestRequest request;
    request.set_model("m");
    change(request);
    auto reader = pull->GetManifest(&context, request);
    v1::ManifestPart part;
    while (reader->Read(&part)) {
    }
    return FromGrpc(reader->Finish());
  };
  auto abort = [&](const std::string& model, uint64_t version) {
    grpc::ClientContext context;
    v1::AbortVersionRequest request;
    v1::AbortVersionResponse response;
    request.set_model(model);
    request.set_version(version);
    return FromGrpc(push->AbortVersion(&context, request, &response));
  };
  EXPECT_OK(describe_version([](auto&) {}));
  EXPECT_THAT(describe_version([](auto& r) { r.mutable_version()->set_number(99); }),
              StatusIs(StatusCode::kNotFound, HasSubstr("99")));
  EXPECT_THAT(describe_version([](auto& r) { r.set_filter("("); }), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(describe_version([](auto& r) { r.set_page_token("x"); }),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("'x'")));
  EXPECT_THAT(describe_version([](auto& r) { r.set_page_token("77"); }), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_OK(describe_tensor([](auto&) {}));
  EXPECT_THAT(describe_tensor([](auto& r) { r.set_name("nope"); }),
              StatusIs(StatusCode::kNotFound, HasSubstr("'nope'")));
  EXPECT_THAT(describe_tensor([](auto& r) { r.mutable_version()->set_number(9); }),
              StatusIs(StatusCode::kFailedPrecondition));
  EXPECT_OK(manifest([](auto&) {}));
  EXPECT_THAT(manifest([](auto& r) { r.set_model("x"); }), StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(manifest([](auto& r) { r.set_filter("*"); }), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(manifest([](auto& r) { r.mutable_version()->set_number(9); }), StatusIs(StatusCode::kFailedPrecondition));
  EXPECT_THAT(abort("m", 99), StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(abort("m", kCommitted), StatusIs(StatusCode::kFailedPrecondition, HasSubstr("m/10 is not open")));
  ExpectUnharmed();
}

}  // namespace
}  // namespace refit
