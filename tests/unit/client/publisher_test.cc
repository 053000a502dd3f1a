#include "refit/publisher.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <optional>
#include <regex>
#include <semaphore>
#include <string>
#include <thread>

#include "absl/strings/match.h"
#include "common/net/messages.h"
#include "common/tensor/kernels.h"
#include "common/wire/digest.h"
#include "refit/v1/push.grpc.pb.h"
#include "tests/unit/net/loopback_server.h"

namespace refit {
namespace {

using std::chrono::milliseconds;
using Bytes = std::vector<std::byte>;
using PushStream = grpc::ServerReaderWriter<v1::PushResponse, v1::PushRequest>;

constexpr uint64_t kChunkBytes = 64;

// Keeps what it is pushed; a test may put a script of its own in the place of that.
class ScriptedPush final : public v1::PushService::Service {
 public:
  using Script = std::function<grpc::Status(grpc::ServerContext&, PushStream&)>;

  grpc::Status Push(grpc::ServerContext* context, PushStream* stream) override {
    return script ? script(*context, *stream) : Receive(*stream);
  }

  grpc::Status AbortVersion(grpc::ServerContext*, const v1::AbortVersionRequest* request,
                            v1::AbortVersionResponse* response) override {
    if (request->version() != 3) return grpc::Status(grpc::StatusCode::NOT_FOUND, "no such version");
    response->mutable_summary()->set_abort_reason(request->reason());
    return grpc::Status::OK;
  }

  // Reads until the last declaration, and opens the version.
  void Open(PushStream& stream) {
    v1::PushRequest request;
    while (stream.Read(&request)) {
      if (request.has_open()) open = request.open();
      if (!request.has_declare()) continue;
      ++declare_messages;
      declared.insert(declared.end(), request.declare().tensors().begin(), request.declare().tensors().end());
      if (request.declare().last()) break;
    }
    SayWaiting(stream);
    v1::PushResponse response;
    v1::VersionOpened& opened = *response.mutable_opened();
    opened.mutable_summary()->set_chunk_bytes(chunk_bytes);
    opened.mutable_summary()->set_version(open.version());
    opened.mutable_summary()->set_world(world.value_or(std::max(open.world(), 1u)));
    opened.set_max_chunk_bytes(max_chunk_bytes);
    opened.set_keeps_dtypes(keeps_dtypes);
    opened.mutable_digest_only()->Assign(digest_only.begin(), digest_only.end());
    stream.Write(response);
  }

  void SayWaiting(PushStream& stream) {
    for (const std::vector<uint32_t>& ranks : waiting) {
      v1::PushResponse response;
      response.mutable_waiting()->mutable_ranks()->Assign(ranks.begin(), ranks.end());
      response.mutable_waiting()->set_missing(ranks.size());
      stream.Write(response);
    }
  }

  grpc::Status Receive(PushStream& stream) {
    Open(stream);
    v1::PushRequest request;
    while (stream.Read(&request)) {
      v1::PushResponse response;
      if (request.has_chunk()) {
        chunks.push_back(request.chunk());
      } else if (request.has_chunks()) {
        chunks.insert(chunks.end(), request.chunks().chunks().begin(), request.chunks().chunks().end());
      } else if (request.has_commit()) {
        SayWaiting(stream);
        response.mutable_committed()->mutable_summary()->set_manifest_digest(77);
        stream.Write(response);
        return grpc::Status::OK;
      } else if (request.has_abort()) {
        abort_reason = request.abort().reason();
        response.mutable_aborted();
        stream.Write(response);
        return grpc::Status::OK;
      }
    }
    cut = true;
    return grpc::Status::CANCELLED;
  }

  // To be read once the server has stopped, or the push has ended.
  Script script;
  uint64_t chunk_bytes = kChunkBytes;
  uint64_t max_chunk_bytes = kChunkBytes;
  bool keeps_dtypes = false;
  std::optional<uint32_t> world;  // unset: as the trainer says
  std::vector<uint64_t> digest_only;
  std::vector<std::vector<uint32_t>> waiting;  // ranks, before each answer
  v1::OpenVersion open;
  int declare_messages = 0;
  std::vector<v1::DeclaredTensor> declared;
  std::vector<v1::Chunk> chunks;
  std::string abort_reason;
  bool cut = false;
};

Bytes Numbered(size_t size) {
  Bytes bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i * 7 + size);
  return bytes;
}

std::vector<TensorPart> Whole(const std::vector<TensorSpec>& specs) {
  std::vector<TensorPart> parts;
  parts.reserve(specs.size());
  for (const TensorSpec& spec : specs) parts.push_back(TensorPart::Whole(spec));
  return parts;
}

class PublisherTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto publisher = Publisher::Connect(server_.channel_options());
    ASSERT_TRUE(publisher.ok()) << publisher.status();
    publisher_ = *std::move(publisher);
  }

  absl::StatusOr<std::unique_ptr<VersionPush>> Open(const PublishOptions& options = {.version = 3}) {
    return publisher_->Open(options, specs_);
  }

  std::unique_ptr<VersionPush> MustOpen() {
    auto push = Open();
    EXPECT_TRUE(push.ok()) << push.status();
    return *std::move(push);
  }

  // What the service got of a tensor, with every rule of the contract checked on the way.
  Bytes Received(size_t index, uint64_t chunk_bytes = kChunkBytes) {
    Bytes bytes;
    bool ended = false;
    const size_t element = ElementSize(static_cast<DType>(service_.declared[index].tensor().dtype()));
    for (const v1::Chunk& chunk : service_.chunks) {
      if (chunk.tensor() != index) continue;
      EXPECT_FALSE(ended);
      EXPECT_EQ(chunk.offset(), bytes.size());
      EXPECT_LE(chunk.payload().size(), service_.max_chunk_bytes);
      EXPECT_EQ(chunk.payload().size() % element, 0u);
      const auto* data = reinterpret_cast<const std::byte*>(chunk.payload().data());
      EXPECT_EQ(chunk.digest(), DigestBytes({data, chunk.payload().size()}));
      bytes.insert(bytes.end(), data, data + chunk.payload().size());
      ended = chunk.has_tensor_digest();
      if (ended) {
        EXPECT_EQ(chunk.tensor_digest(), DigestTensor(bytes, chunk_bytes));
      }
    }
    EXPECT_EQ(ended, !bytes.empty());
    return bytes;
  }

  const std::vector<TensorSpec> specs_ = {
      {"a", DType::kBF16, {100}}, {"empty", DType::kF32, {0}}, {"b", DType::kF64, {50}}};
  const Bytes a_ = Numbered(200);
  const Bytes b_ = Numbered(400);
  ScriptedPush service_;
  LoopbackServer server_{{&service_}};
  std::unique_ptr<Publisher> publisher_;
};

TEST_F(PublisherTest, PushesAVersion) {
  const auto push = MustOpen();
  EXPECT_EQ(push->summary().version, 3u);
  EXPECT_EQ(push->shards(), Whole(specs_));
  ASSERT_TRUE(push->Push("b", b_).ok());
  ASSERT_TRUE(push->Push("a", a_).ok());
  ASSERT_TRUE(push->Push("empty", {}).ok());
  const auto summary = push->Commit();
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_EQ(summary->manifest_digest, 77u);
  EXPECT_EQ(Received(0), a_);
  EXPECT_EQ(Received(2), b_);
  EXPECT_EQ(service_.chunks.size(), 4u + 7u);
}

TEST_F(PublisherTest, DeclaresWhatItWasTold) {
  PublishOptions options{.model = "m", .version = 9, .adapter = "identity", .dtype = DType::kBF16};
  options.exclude_key_regex = "x.*";
  options.publisher = "rank 0";
  ASSERT_TRUE(Open(options).ok());
  EXPECT_EQ(service_.open.model(), "m");
  EXPECT_EQ(service_.open.version(), 9u);
  EXPECT_EQ(service_.open.adapter(), "identity");
  EXPECT_EQ(service_.open.dtype(), v1::DTYPE_BF16);
  EXPECT_EQ(service_.open.exclude_key_regex(), "x.*");
  EXPECT_EQ(service_.open.publisher(), "rank 0");
  EXPECT_EQ(service_.open.world(), 0u);
  ASSERT_EQ(service_.declared.size(), 3u);
  EXPECT_EQ(service_.declared[0].tensor().name(), "a");
  EXPECT_EQ(service_.declared[0].tensor().dtype(), v1::DTYPE_BF16);
  EXPECT_EQ(service_.declared[0].tensor().shape(0), 100);
  for (const v1::DeclaredTensor& declared : service_.declared) EXPECT_FALSE(declared.has_box());
}

// b, 50 numbers in F64, is sent in BF16: 100 bytes of the 400. The trainer hears of its own bytes only.
TEST_F(PublisherTest, WhatIsCastIsDeclaredAndSentInItsNewType) {
  Bytes cast(100);
  ConvertElements(DType::kF64, DType::kBF16, b_.data(), cast.data(), 50);
  for (const size_t piece : {8, 24, 136, 256, 400}) {
    service_.chunks.clear();
    service_.declared.clear();
    const auto opened = Open({.version = 3, .dtype = DType::kBF16});
    ASSERT_TRUE(opened.ok()) << opened.status();
    VersionPush& push = **opened;
    EXPECT_EQ(push.shards(), Whole(specs_));
    for (const v1::DeclaredTensor& declared : service_.declared) EXPECT_EQ(declared.tensor().dtype(), v1::DTYPE_BF16);

    const auto expect = [](const absl::Status& status, absl::StatusCode code, const std::string& text) {
      EXPECT_EQ(status.code(), code) << status;
      EXPECT_NE(status.message().find(text), std::string::npos) << status;
    };
    expect(push.Push("b", cast), absl::StatusCode::kInvalidArgument, "tensor b F64 [50]: expected 400 bytes, got 100");
    expect(push.Append(2, absl::MakeConstSpan(b_).first(4)), absl::StatusCode::kInvalidArgument, "whole elements of 8");
    expect(push.Append(2, Bytes(408)), absl::StatusCode::kOutOfRange, "F64 [50]: 408 bytes more, but it lacks 400");
    ASSERT_TRUE(push.Push("a", a_).ok());
    ASSERT_TRUE(push.Append(2, absl::MakeConstSpan(b_).first(8)).ok());
    expect(push.Commit().status(), absl::StatusCode::kFailedPrecondition,
           "F64 [50]: cannot commit, only 8 of 400 bytes");
    expect(push.Append(2, b_), absl::StatusCode::kOutOfRange, "400 bytes more, but it lacks 392");
    for (size_t offset = 8; offset < b_.size(); offset += piece) {
      ASSERT_TRUE(push.Append(2, absl::MakeConstSpan(b_).subspan(offset, piece)).ok());
    }
    ASSERT_TRUE(push.Commit().ok());
    EXPECT_EQ(Received(0), a_);
    EXPECT_EQ(Received(2), cast);
  }
}

TEST_F(PublisherTest, WhatIsCastMayChangeAtOnceAlsoWithAnOwner) {
  service_.chunk_bytes = service_.max_chunk_bytes = 1 << 20;
  const std::vector<TensorSpec> specs = {{"masters", DType::kF32, {500'000}}};
  auto owned = std::make_shared<Bytes>(specs[0].ByteSize());
  const std::weak_ptr<Bytes> watch = owned;
  const auto push = publisher_->Open({.version = 3, .dtype = DType::kBF16}, specs);
  ASSERT_TRUE(push.ok()) << push.status();
  ASSERT_TRUE((*push)->Push("masters", *owned, owned).ok());
  std::fill(owned->begin(), owned->end(), std::byte{0x3F});
  owned.reset();
  EXPECT_TRUE(watch.expired());
  ASSERT_TRUE((*push)->Commit().ok());
  std::string received;
  for (const v1::Chunk& chunk : service_.chunks) received += chunk.payload();
  EXPECT_EQ(received, std::string(1'000'000, '\0'));
}

TEST_F(PublisherTest, AServiceThatWouldCastWhatIsToBeKeptIsRefused) {
  PublishOptions options{.version = 9, .dtype = DType::kBF16};
  options.keep_dtype_regex = ".*bias";
  const absl::Status refused = Open(options).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(refused)) << refused;
  EXPECT_TRUE(absl::StrContains(refused.message(), "older than keep_dtype_regex")) << refused;
  service_.keeps_dtypes = true;
  options.version = 10;
  ASSERT_TRUE(Open(options).ok());
  EXPECT_EQ(service_.open.keep_dtype_regex(), ".*bias");
}

TEST_F(PublisherTest, LongDeclarationsComeInParts) {
  std::vector<TensorSpec> specs;
  specs.reserve(10'000);
  for (int i = 0; i < 10'000; ++i) specs.push_back({std::string(900, 'n') + std::to_string(i), DType::kF32, {1}});
  const auto push = publisher_->Open({.version = 1}, specs);
  ASSERT_TRUE(push.ok()) << push.status();
  EXPECT_EQ(service_.declared.size(), 10'000u);
  EXPECT_GT(service_.declare_messages, 5);
}

TEST_F(PublisherTest, PiecesMayEndAnywhere) {
  for (const size_t piece : {8, 24, 72, 136, 400}) {
    service_.chunks.clear();
    const auto push = MustOpen();
    for (size_t offset = 0; offset < b_.size(); offset += piece) {
      ASSERT_TRUE(push->Append(2, absl::MakeConstSpan(b_).subspan(offset, piece)).ok());
      ASSERT_TRUE(push->Append(0, absl::MakeConstSpan(a_).subspan(std::min(offset, a_.size()), piece)).ok());
    }
    ASSERT_TRUE(push->Commit().ok());
    EXPECT_EQ(Received(0), a_);
    EXPECT_EQ(Received(2), b_);
  }
}

TEST_F(PublisherTest, KeepsToTheServicesLimits) {
  service_.max_chunk_bytes = 30;  // less than a chunk, and no multiple of an element
  const auto push = MustOpen();
  ASSERT_TRUE(push->Push("b", b_).ok());
  ASSERT_TRUE(push->Push("a", a_).ok());
  ASSERT_TRUE(push->Commit().ok());
  EXPECT_EQ(Received(0), a_);
  EXPECT_EQ(Received(2), b_);
}

TEST_F(PublisherTest, AServiceWithoutSensibleLimitsIsRefused) {
  service_.chunk_bytes = 0;
  EXPECT_EQ(Open().status().code(), absl::StatusCode::kInternal);
}

TEST_F(PublisherTest, BorrowsWhatHasAnOwner) {
  auto owned = std::make_shared<Bytes>(b_);
  const std::weak_ptr<Bytes> watch = owned;
  {
    const auto push = MustOpen();
    ASSERT_TRUE(push->Push("b", *owned, owned).ok());
    owned.reset();
    ASSERT_TRUE(push->Push("a", a_).ok());
    ASSERT_TRUE(push->Commit().ok());
  }
  EXPECT_EQ(Received(2), b_);
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!watch.expired() && std::chrono::steady_clock::now() < end) std::this_thread::yield();
  EXPECT_TRUE(watch.expired());
}

TEST_F(PublisherTest, MisuseIsExplainedAndHarmless) {
  const auto push = MustOpen();
  const auto expect = [](const absl::Status& status, absl::StatusCode code, const std::string& text) {
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_NE(status.message().find(text), std::string::npos) << status;
    EXPECT_EQ(status.message().find("push of default/3 to 127.0.0.1:"), 0u) << status;
  };
  expect(push->Push("c", {}), absl::StatusCode::kNotFound, "tensor c was not declared");
  expect(push->Push("a", b_), absl::StatusCode::kInvalidArgument, "tensor a BF16 [100]: expected 200 bytes, got 400");
  expect(push->Append(0, b_), absl::StatusCode::kOutOfRange, "400 bytes more, but it lacks 200");
  expect(push->Append(3, {}), absl::StatusCode::kOutOfRange, "no tensor 3");
  expect(push->Append(0, absl::MakeConstSpan(a_).subspan(0, 3)), absl::StatusCode::kInvalidArgument, "whole elements");
  expect(push->Append(0, {static_cast<const std::byte*>(nullptr), 200}), absl::StatusCode::kInvalidArgument,
         "tensor a BF16 [100]: got 200 bytes at a null address");
  ASSERT_TRUE(push->Push("a", a_).ok());
  expect(push->Push("a", a_), absl::StatusCode::kOutOfRange, "lacks 0");
  expect(push->Commit().status(), absl::StatusCode::kFailedPrecondition,
         "tensor b F64 [50]: cannot commit, only 0 of 400 bytes");
  ASSERT_TRUE(push->Push("b", b_).ok());
  ASSERT_TRUE(push->Commit().ok());
  expect(push->Commit().status(), absl::StatusCode::kFailedPrecondition, "is committed");
  expect(push->Append(0, {}), absl::StatusCode::kFailedPrecondition, "is committed");
  expect(push->Abort("late"), absl::StatusCode::kFailedPrecondition, "is committed");
  EXPECT_EQ(Received(0), a_);
}

TEST_F(PublisherTest, BadSpecsAreRefusedBeforeAnythingIsSent) {
  for (const TensorSpec& spec : {TensorSpec{"", DType::kF32, {1}}, TensorSpec{"x", DType::kF32, {-1}},
                                 TensorSpec{"x", DType::kF32, {INT64_MAX, 2}}, TensorSpec{"\xff", DType::kF32, {1}}}) {
    EXPECT_EQ(publisher_->Open({.version = 1}, {spec}).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST_F(PublisherTest, AbortIsIdempotent) {
  const auto push = MustOpen();
  ASSERT_TRUE(push->Append(0, a_).ok());
  EXPECT_TRUE(push->Abort("changed my mind").ok());
  EXPECT_TRUE(push->Abort("again").ok());
  EXPECT_EQ(service_.abort_reason, "changed my mind");
  EXPECT_EQ(push->Commit().status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(PublisherTest, DestroyingAPushCutsItsStream) {
  MustOpen().reset();
  server_.Stop();
  EXPECT_TRUE(service_.cut);
}

TEST_F(PublisherTest, ARefusalToOpenComesThrough) {
  service_.script = [](grpc::ServerContext&, PushStream&) {
    return grpc::Status(grpc::StatusCode::ALREADY_EXISTS, "version 3 was committed before");
  };
  EXPECT_EQ(Open().status(),
            absl::AlreadyExistsError("push of default/3 to " + server_.address() + ": version 3 was committed before"));
}

TEST_F(PublisherTest, ARefusalWithinATensorNamesIt) {
  service_.script = [&](grpc::ServerContext&, PushStream& stream) {
    service_.Open(stream);
    v1::PushRequest request;
    stream.Read(&request);
    return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "memory budget");
  };
  const std::vector<TensorSpec> specs = {{"large", DType::kU8, {64 << 20}}};
  const auto push = publisher_->Open({.version = 3}, specs);
  ASSERT_TRUE(push.ok()) << push.status();
  const absl::Status expected =
      absl::ResourceExhaustedError("push of default/3 to " + server_.address() + ", tensor large: memory budget");
  EXPECT_EQ((*push)->Push("large", Bytes(64 << 20)), expected);
  EXPECT_EQ((*push)->Append(0, {}), expected);
  EXPECT_EQ((*push)->Commit().status(), expected);
  EXPECT_TRUE((*push)->Abort("anyway").ok());
}

TEST_F(PublisherTest, AStreamThatEndsEarlyIsNoCommit) {
  service_.script = [&](grpc::ServerContext&, PushStream& stream) {
    service_.Open(stream);
    return grpc::Status::OK;
  };
  const auto push = publisher_->Open({.version = 3}, {});
  ASSERT_TRUE(push.ok()) << push.status();
  const absl::Status status = (*push)->Commit().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_NE(status.message().find("before it was committed"), std::string::npos) << status;
}

TEST_F(PublisherTest, AStreamThatIsCutSaysAfterHowLongAndThatAProxyMayBeWhy) {
  service_.script = [&](grpc::ServerContext&, PushStream& stream) {
    service_.Open(stream);
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "upstream request timeout");  // Envoy's words
  };
  const auto push = publisher_->Open({.version = 3}, {});
  ASSERT_TRUE(push.ok()) << push.status();
  const std::string message((*push)->Commit().status().message());
  EXPECT_TRUE(std::regex_search(message, std::regex("upstream request timeout .*cut after [0-9.]+ s.*proxy")))
      << message;
}

TEST_F(PublisherTest, AWrongAnswerIsRefused) {
  service_.script = [](grpc::ServerContext&, PushStream& stream) {
    v1::PushRequest request;
    while (stream.Read(&request) && !request.declare().last()) continue;
    v1::PushResponse response;
    response.mutable_committed();
    stream.Write(response);
    return grpc::Status::OK;
  };
  const absl::Status status = Open().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_NE(status.message().find("field 3"), std::string::npos) << status;
}

TEST_F(PublisherTest, SilenceEndsEveryWait) {
  const auto wait = [](grpc::ServerContext& context, PushStream& stream) {
    v1::PushRequest request;
    while (!context.IsCancelled() && stream.Read(&request)) continue;
    while (!context.IsCancelled()) std::this_thread::yield();
    return grpc::Status::OK;
  };
  service_.script = wait;
  const PublishOptions impatient{.version = 3, .timeout = milliseconds(100)};
  EXPECT_EQ(Open(impatient).status().code(), absl::StatusCode::kDeadlineExceeded);

  service_.script = [&](grpc::ServerContext& context, PushStream& stream) {
    service_.Open(stream);
    return wait(context, stream);
  };
  const auto push = publisher_->Open(impatient, {});
  ASSERT_TRUE(push.ok()) << push.status();
  EXPECT_EQ((*push)->Commit().status().code(), absl::StatusCode::kDeadlineExceeded);
}

// Rank 2 of 4: half of a's columns, b whole, nothing of c.
class ShardedPublisherTest : public PublisherTest {
 protected:
  static PublishOptions Options() { return {.version = 3, .rank = 2, .world = 4, .timeout = std::chrono::seconds(20)}; }

  absl::StatusOr<std::unique_ptr<VersionPush>> OpenShards(const PublishOptions& options = Options()) {
    return publisher_->OpenShards(options, shards_);
  }

  absl::Status PushAll(VersionPush& push, size_t piece = SIZE_MAX) {
    for (size_t i = 0; i < shards_.size(); ++i) {
      for (auto rest = absl::MakeConstSpan(data_[i]); !rest.empty(); rest.remove_prefix(std::min(piece, rest.size()))) {
        if (absl::Status status = push.Append(i, rest.subspan(0, piece)); !status.ok()) return status;
      }
    }
    return push.Commit().status();
  }

  std::string Context() const { return "push of default/3 (rank 2 of 4) to " + server_.address(); }

  const std::vector<TensorPart> shards_ = {{{"a", DType::kBF16, {10, 20}}, {{0, 10}, {10, 10}}},
                                           TensorPart::Whole({"b", DType::kF64, {50}}),
                                           {{"c", DType::kF32, {7, 3}}, {{7, 0}, {0, 3}}}};
  const std::vector<Bytes> data_ = {Numbered(200), Numbered(400), {}};
};

TEST_F(ShardedPublisherTest, DeclaresBoxesAndPushesThem) {
  const auto push = OpenShards();
  ASSERT_TRUE(push.ok()) << push.status();
  EXPECT_EQ((*push)->shards(), shards_);
  EXPECT_EQ(service_.open.rank(), 2u);
  EXPECT_EQ(service_.open.world(), 4u);
  ASSERT_EQ(service_.declared.size(), 3u);
  EXPECT_EQ(service_.declared[0].tensor().shape(1), 20);
  EXPECT_EQ(FromProto(service_.declared[0].box()), shards_[0].box);
  EXPECT_FALSE(service_.declared[1].has_box());
  EXPECT_EQ(FromProto(service_.declared[2].box()), shards_[2].box);

  ASSERT_TRUE((*push)->Push("a", data_[0]).ok());
  ASSERT_TRUE((*push)->Push("c", {}).ok());
  EXPECT_EQ(
      (*push)->Commit().status(),
      absl::FailedPreconditionError(Context() + ", tensor b F64 [50]: cannot commit, only 0 of 400 bytes were pushed"));
  ASSERT_TRUE((*push)->Push("b", data_[1]).ok());
  ASSERT_TRUE((*push)->Commit().ok());
  EXPECT_EQ(Received(0), data_[0]);
  EXPECT_EQ(service_.chunks.size(), 4u + 7u);
}

TEST_F(ShardedPublisherTest, TheShardsSizeCounts) {
  const auto push = OpenShards();
  ASSERT_TRUE(push.ok()) << push.status();
  EXPECT_EQ((*push)->Push("a", Bytes(400)),
            absl::InvalidArgumentError(Context() +
                                       ", tensor a BF16 [10, 20] box [0:10, 10:20]: expected 200 bytes, got 400"));
  EXPECT_EQ((*push)->Append(2, Bytes(4)),
            absl::OutOfRangeError(Context() + ", tensor c F32 [7, 3] box [7:7, 0:3]: 4 bytes more, but it lacks 0"));
}

TEST_F(ShardedPublisherTest, ShardsThatAnotherRankSendsAreDigestedOnly) {
  service_.digest_only = {0, 2};
  for (const size_t piece : {8, 56, 64, 136, 400}) {
    service_.chunks.clear();
    const auto push = OpenShards();
    ASSERT_TRUE(push.ok()) << push.status();
    EXPECT_TRUE((*push)->digest_only(0));
    EXPECT_FALSE((*push)->digest_only(1));
    EXPECT_TRUE((*push)->digest_only(2));
    EXPECT_FALSE((*push)->digest_only(99));
    ASSERT_TRUE(PushAll(**push, piece).ok());
    ASSERT_GE(service_.chunks.size(), 2u);
    EXPECT_EQ(service_.chunks[1].tensor(), 1u);
    EXPECT_EQ(service_.chunks.back().tensor(), 1u);
    const v1::Chunk& chunk = service_.chunks[0];
    EXPECT_EQ(chunk.tensor(), 0u);
    EXPECT_EQ(chunk.offset(), 0u);
    EXPECT_TRUE(chunk.payload().empty());
    EXPECT_EQ(chunk.digest(), DigestBytes({}));
    EXPECT_EQ(chunk.tensor_digest(), DigestTensor(data_[0], kChunkBytes));
  }
}

TEST_F(ShardedPublisherTest, TheDigestOfACastShardIsOverWhatIsSent) {
  service_.digest_only = {1};
  Bytes cast(100);
  ConvertElements(DType::kF64, DType::kBF16, data_[1].data(), cast.data(), 50);
  PublishOptions options = Options();
  options.dtype = DType::kBF16;
  for (const size_t piece : {8, 56, 136, 400}) {
    service_.chunks.clear();
    const auto push = OpenShards(options);
    ASSERT_TRUE(push.ok()) << push.status();
    ASSERT_TRUE(PushAll(**push, piece).ok());
    const auto chunk = std::find_if(service_.chunks.begin(), service_.chunks.end(),
                                    [](const v1::Chunk& candidate) { return candidate.tensor() == 1; });
    ASSERT_NE(chunk, service_.chunks.end());
    EXPECT_TRUE(chunk->payload().empty());
    EXPECT_EQ(chunk->tensor_digest(), DigestTensor(cast, kChunkBytes));
  }
}

TEST_F(ShardedPublisherTest, DigestedShardsAreCheckedLikeOthers) {
  service_.digest_only = {0};
  const auto push = OpenShards();
  ASSERT_TRUE(push.ok()) << push.status();
  EXPECT_EQ((*push)->Append(0, Bytes(3)).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ((*push)->Append(0, Bytes(202)).code(), absl::StatusCode::kOutOfRange);
  ASSERT_TRUE((*push)->Append(0, absl::MakeConstSpan(data_[0]).first(100)).ok());
  const absl::Status status = (*push)->Commit().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(status.message().find("only 100 of 200 bytes"), std::string::npos) << status;
  ASSERT_TRUE((*push)->Append(0, absl::MakeConstSpan(data_[0]).subspan(100)).ok());
  EXPECT_EQ((*push)->Append(0, Bytes(2)).code(), absl::StatusCode::kOutOfRange);
  ASSERT_TRUE((*push)->Append(1, data_[1]).ok());
  EXPECT_TRUE((*push)->Commit().ok());
}

TEST_F(ShardedPublisherTest, OtherBytesThanAnotherRanksAreRefused) {
  service_.digest_only = {0};
  service_.script = [&](grpc::ServerContext&, PushStream& stream) {
    service_.Open(stream);
    v1::PushRequest request;
    while (stream.Read(&request) && !request.chunk().has_tensor_digest()) continue;
    return grpc::Status(grpc::StatusCode::DATA_LOSS, "rank 0 holds other bytes of tensor b");
  };
  const auto push = publisher_->OpenShards(Options(), {shards_[1]});
  ASSERT_TRUE(push.ok()) << push.status();
  absl::Status status = (*push)->Push("b", data_[1]);
  if (status.ok()) status = (*push)->Commit().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
  EXPECT_NE(status.message().find("rank 0 holds other bytes of tensor b"), std::string::npos) << status;
}

TEST_F(ShardedPublisherTest, TellsWhichRanksAreMissing) {
  std::vector<uint32_t> many(16);
  std::iota(many.begin(), many.end(), 3);
  service_.waiting = {{0, 3}, many, {}};
  std::vector<std::vector<uint32_t>> heard;
  PublishOptions options = Options();
  options.on_waiting = [&](absl::Span<const uint32_t> ranks) { heard.emplace_back(ranks.begin(), ranks.end()); };
  const auto push = OpenShards(options);
  ASSERT_TRUE(push.ok()) << push.status();
  EXPECT_EQ(heard, service_.waiting);
  ASSERT_TRUE(PushAll(**push).ok());
  EXPECT_EQ(heard.size(), 6u);
}

TEST_F(ShardedPublisherTest, NobodyNeedsToHearIt) {
  service_.waiting = {{0}, {1}};
  const auto push = OpenShards();
  ASSERT_TRUE(push.ok()) << push.status();
  EXPECT_TRUE(PushAll(**push).ok());
}

TEST_F(ShardedPublisherTest, WaitingForOthersIsNoSilence) {
  constexpr milliseconds kTimeout(150);
  std::counting_semaphore<> heard(0);
  service_.script = [&](grpc::ServerContext&, PushStream& stream) {
    service_.waiting = {{1}};
    const auto end = std::chrono::steady_clock::now() + 3 * kTimeout;
    while (std::chrono::steady_clock::now() < end) {
      service_.SayWaiting(stream);
      if (!heard.try_acquire_for(kTimeout)) break;
    }
    service_.waiting.clear();
    service_.Open(stream);
    return grpc::Status::OK;
  };
  PublishOptions options = Options();
  options.timeout = kTimeout;
  options.on_waiting = [&](absl::Span<const uint32_t>) { heard.release(); };
  const auto push = OpenShards(options);
  EXPECT_TRUE(push.ok()) << push.status();
}

TEST_F(ShardedPublisherTest, AServiceThatFallsSilentAfterWaitingEndsIt) {
  service_.waiting = {{1}};
  service_.script = [&](grpc::ServerContext& context, PushStream& stream) {
    service_.SayWaiting(stream);
    while (!context.IsCancelled()) std::this_thread::yield();
    return grpc::Status::OK;
  };
  PublishOptions options = Options();
  options.timeout = milliseconds(100);
  EXPECT_EQ(OpenShards(options).status().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(ShardedPublisherTest, AnotherRanksDeathComesThrough) {
  service_.script = [&](grpc::ServerContext&, PushStream& stream) {
    service_.Open(stream);
    v1::PushRequest request;
    while (stream.Read(&request) && !request.has_commit()) continue;
    service_.waiting = {{1}};
    service_.SayWaiting(stream);
    return grpc::Status(grpc::StatusCode::ABORTED, "rank 1's stream was cut");
  };
  const auto push = OpenShards();
  ASSERT_TRUE(push.ok()) << push.status();
  EXPECT_EQ(PushAll(**push), absl::AbortedError(Context() + ": rank 1's stream was cut"));
}

TEST_F(ShardedPublisherTest, BreachesAreRefused) {
  const auto expect = [&](const std::string& text) {
    const absl::Status status = OpenShards().status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << status;
    EXPECT_NE(status.message().find(text), std::string::npos) << status;
    EXPECT_EQ(status.message().find(Context()), 0u) << status;
  };
  service_.digest_only = {1, 3};
  expect("the bytes of tensor number 3; 3 were declared");
  service_.digest_only = {UINT64_MAX};
  expect("the bytes of tensor number 18446744073709551615");
  service_.digest_only = {};
  service_.world = 0;  // knows no ranks
  expect("opened it for 0 ranks");
  service_.world = 8;
  expect("opened it for 8 ranks");
}

TEST_F(ShardedPublisherTest, BadRanksAreRefusedBeforeAnythingIsSent) {
  for (const auto& [rank, world] : {std::pair(4u, 4u), std::pair(5u, 4u), std::pair(1u, 1u), std::pair(0u, 0u)}) {
    PublishOptions options = Options();
    options.rank = rank;
    options.world = world;
    const absl::Status status = OpenShards(options).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    const std::string text = "rank " + std::to_string(rank) + " is not below world " + std::to_string(world);
    EXPECT_NE(status.message().find(text), std::string::npos) << status;
  }
  EXPECT_TRUE(service_.declared.empty());
}

TEST_F(ShardedPublisherTest, BadBoxesAreRefusedBeforeAnythingIsSent) {
  for (const Box& box : {Box{{0}, {4}}, Box{{}, {}}, Box{{0, 0}, {4}}, Box{{0, 0, 0}, {1, 1, 1}}, Box{{-1, 0}, {2, 3}},
                         Box{{0, 0}, {4, -1}}, Box{{1, 0}, {4, 3}}, Box{{0, 4}, {4, 0}}, Box{{INT64_MAX, 0}, {1, 3}},
                         Box{{1, 0}, {INT64_MAX, 3}}, Box{{INT64_MIN, 0}, {INT64_MIN, 3}}}) {
    const absl::Status status =
        publisher_->OpenShards(Options(), {shards_[0], {{"x.weight", DType::kF32, {4, 3}}, box}}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_EQ(status.message().find(Context() + ": tensor x.weight: a box "), 0u) << status;
  }
  EXPECT_EQ(publisher_->OpenShards(Options(), {{{"x", DType::kF32, {-4}}, {{0}, {1}}}}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(service_.declared.empty());
}

TEST_F(PublisherTest, AbortsFromOutside) {
  const auto summary = publisher_->Abort("default", 3, "stuck");
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_EQ(summary->abort_reason, "stuck");
  EXPECT_EQ(publisher_->Abort("default", 4, "").status(),
            absl::NotFoundError("abort of default/4 at " + server_.address() + ": no such version"));
}

}  // namespace
}  // namespace refit
