#include "common/net/raw_call.h"

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <string>
#include <thread>

#include "common/net/byte_buffer.h"
#include "common/net/channel.h"
#include "common/net/received_message.h"
#include "refit/v1/pull.grpc.pb.h"
#include "refit/v1/push.grpc.pb.h"
#include "tests/unit/net/loopback_server.h"

namespace refit {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr char kPush[] = "/refit.v1.PushService/Push";
constexpr char kPull[] = "/refit.v1.PullService/Pull";
constexpr milliseconds kPatience = seconds(20);
constexpr milliseconds kShort{100};

using PushStream = grpc::ServerReaderWriter<v1::PushResponse, v1::PushRequest>;

class ScriptedPush final : public v1::PushService::Service {
 public:
  using Script = std::function<grpc::Status(grpc::ServerContext&, PushStream&)>;
  explicit ScriptedPush(Script script) : script_(std::move(script)) {}
  grpc::Status Push(grpc::ServerContext* context, PushStream* stream) override { return script_(*context, *stream); }

 private:
  Script script_;
};

class ScriptedPull final : public v1::PullService::Service {
 public:
  grpc::Status Pull(grpc::ServerContext*, const v1::PullRequest* request,
                    grpc::ServerWriter<v1::PullResponse>* writer) override {
    v1::PullResponse response;
    for (uint64_t i = 0; i < request->version().number(); ++i) {
      response.mutable_chunk()->set_tensor(i);
      response.mutable_chunk()->set_payload(std::string(10'000, 'p'));
      if (!writer->Write(response)) break;
    }
    return grpc::Status(grpc::StatusCode::ABORTED, "that was all");
  }
};

// Blocks until the peer is gone.
void AwaitCancellation(grpc::ServerContext& context, PushStream& stream) {
  v1::PushRequest request;
  while (!context.IsCancelled() && stream.Read(&request)) continue;
}

std::unique_ptr<RawCall> Start(const LoopbackServer& server, const char* method) {
  const auto channel = Connect(server.channel_options());
  EXPECT_TRUE(channel.ok()) << channel.status();
  return RawCall::Start(*channel, method);
}

v1::PushRequest OpenRequest(uint64_t version) {
  v1::PushRequest request;
  request.mutable_open()->set_version(version);
  return request;
}

// Answers each message with one of the same number; ends when the client does.
grpc::Status Echo(grpc::ServerContext&, PushStream& stream) {
  v1::PushRequest request;
  v1::PushResponse response;
  while (stream.Read(&request)) {
    response.mutable_opened()->set_max_chunk_bytes(request.open().version());
    stream.Write(response);
  }
  return grpc::Status::OK;
}

TEST(RawCall, BidirectionalRoundTrips) {
  ScriptedPush service(Echo);
  const LoopbackServer server({&service});
  const auto call = Start(server, kPush);
  for (uint64_t i = 1; i <= 200; ++i) {
    ASSERT_TRUE(call->Write(Serialize(OpenRequest(i)), kPatience).ok());
    const auto message = call->Read(kPatience);
    ASSERT_TRUE(message.ok() && message->has_value());
    v1::PushResponse response;
    ASSERT_TRUE(Parse(**message, response).ok());
    ASSERT_EQ(response.opened().max_chunk_bytes(), i);
  }
  ASSERT_TRUE(call->WritesDone(kPatience).ok());
  const auto end = call->Read(kPatience);
  ASSERT_TRUE(end.ok());
  EXPECT_FALSE(end->has_value());
  EXPECT_TRUE(call->Finish(kPatience).ok());
  EXPECT_TRUE(call->Finish(kPatience).ok());
}

// Pieces are names of tensors, which a declaration has several of.
constexpr size_t kPiece = 100;

// NOLINTNEXTLINE(performance-unnecessary-value-param): as MakeBatchMessage, which takes them over.
grpc::ByteBuffer Declaration(std::string pieces) {
  v1::PushRequest request;
  for (size_t at = 0; at < pieces.size(); at += kPiece) {
    request.mutable_declare()->add_tensors()->mutable_tensor()->set_name(pieces.substr(at, kPiece));
  }
  return Serialize(request);
}

RawCall::Batching PiecesFor(milliseconds wait) { return {10 * kPiece, kPiece, wait, &Declaration}; }

absl::Status WritePiece(RawCall& call, milliseconds wait) {
  return call.WriteTogether([](std::string& pieces) { pieces.append(kPiece, 'n'); }, PiecesFor(wait), kPatience);
}

// Answers each message with how many pieces it has.
grpc::Status CountPieces(grpc::ServerContext&, PushStream& stream) {
  v1::PushRequest request;
  v1::PushResponse response;
  while (stream.Read(&request)) {
    response.mutable_opened()->set_max_chunk_bytes(static_cast<uint64_t>(request.declare().tensors_size()));
    stream.Write(response);
  }
  return grpc::Status::OK;
}

uint64_t ReadCount(RawCall& call) {
  const auto message = call.Read(kPatience);
  v1::PushResponse response;
  EXPECT_TRUE(message.ok() && message->has_value() && Parse(**message, response).ok());
  return response.opened().max_chunk_bytes();
}

TEST(RawCall, PiecesAreSentTogetherOnceTheyAreMany) {
  ScriptedPush service(CountPieces);
  const LoopbackServer server({&service});
  const auto call = Start(server, kPush);
  uint64_t sent = 0;
  for (int i = 0; i < 1005; ++i) ASSERT_TRUE(WritePiece(*call, std::chrono::hours(1)).ok());
  while (sent < 1000) {
    const uint64_t pieces = ReadCount(*call);
    EXPECT_GE(pieces, 10u);
    sent += pieces;
  }
  while (sent < 1005) sent += ReadCount(*call);  // what was left, since it is waited for
  EXPECT_EQ(sent, 1005u);
}

TEST(RawCall, PiecesWaitForOthersNoLongerThanTheyMay) {
  std::atomic<int> pieces{0};
  ScriptedPush service([&](grpc::ServerContext&, PushStream& stream) {
    v1::PushRequest request;
    while (stream.Read(&request)) pieces += request.declare().tensors_size();
    return grpc::Status::OK;
  });
  const LoopbackServer server({&service});
  const auto call = Start(server, kPush);
  for (int i = 1; i <= 3; ++i) {
    ASSERT_TRUE(WritePiece(*call, milliseconds(1)).ok());
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    while (pieces < i && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
    ASSERT_EQ(pieces, i);
  }
}

TEST(RawCall, PiecesGoBeforeWhateverIsWrittenNext) {
  ScriptedPush service(CountPieces);
  const LoopbackServer server({&service});
  const auto call = Start(server, kPush);
  ASSERT_TRUE(WritePiece(*call, std::chrono::hours(1)).ok());
  ASSERT_TRUE(call->Write(Serialize(OpenRequest(1)), kPatience).ok());
  EXPECT_EQ(ReadCount(*call), 1u);
  EXPECT_EQ(ReadCount(*call), 0u);
  ASSERT_TRUE(WritePiece(*call, std::chrono::hours(1)).ok());
  ASSERT_TRUE(WritePiece(*call, std::chrono::hours(1)).ok());
  ASSERT_TRUE(call->WritesDone(kPatience).ok());
  EXPECT_EQ(ReadCount(*call), 2u);
  EXPECT_FALSE(WritePiece(*call, std::chrono::hours(1)).ok());
  EXPECT_TRUE(call->Finish(kPatience).ok());
}

TEST(RawCall, ACallEndsWhilePiecesWait) {
  ScriptedPush service([](grpc::ServerContext& context, PushStream& stream) {
    AwaitCancellation(context, stream);
    return grpc::Status::OK;
  });
  const LoopbackServer server({&service});
  for (const milliseconds wait : {milliseconds(1), milliseconds(3'600'000)}) {
    for (int i = 0; i < 20; ++i) {
      const auto call = Start(server, kPush);
      ASSERT_TRUE(WritePiece(*call, wait).ok());
    }
  }
}

TEST(RawCall, ReadsAndWritesConcurrently) {
  ScriptedPush service(Echo);
  const LoopbackServer server({&service});
  const auto call = Start(server, kPush);
  constexpr uint64_t kMessages = 2000;
  std::thread writer([&] {
    for (uint64_t i = 1; i <= kMessages; ++i) {
      if (!call->Write(Serialize(OpenRequest(i)), kPatience).ok()) break;
    }
    (void)call->WritesDone(kPatience);
  });
  uint64_t received = 0;
  while (true) {
    const auto message = call->Read(kPatience);
    if (!message.ok() || !message->has_value()) break;
    ++received;
  }
  writer.join();
  EXPECT_EQ(received, kMessages);
  EXPECT_TRUE(call->Finish(kPatience).ok());
}

TEST(RawCall, ServerStreamingWithItsFinalStatus) {
  ScriptedPull service;
  const LoopbackServer server({&service});
  const auto call = Start(server, kPull);
  v1::PullRequest request;
  request.mutable_version()->set_number(50);
  ASSERT_TRUE(call->Write(Serialize(request), kPatience).ok());
  ASSERT_TRUE(call->WritesDone(kPatience).ok());
  uint64_t count = 0;
  while (true) {
    const auto message = call->Read(kPatience);
    ASSERT_TRUE(message.ok()) << message.status();
    if (!message->has_value()) break;
    const auto chunk = ReceivedMessage(**message).DecodeChunk();
    ASSERT_TRUE(chunk.ok() && chunk->has_value());
    EXPECT_EQ((*chunk)->header.tensor, count++);
  }
  EXPECT_EQ(count, 50u);
  EXPECT_EQ(call->Finish(kPatience), absl::AbortedError("that was all"));
}

TEST(RawCall, FinishDropsWhatNobodyRead) {
  ScriptedPull service;
  const LoopbackServer server({&service});
  const auto call = Start(server, kPull);
  v1::PullRequest request;
  request.mutable_version()->set_number(500);
  ASSERT_TRUE(call->Write(Serialize(request), kPatience).ok());
  ASSERT_TRUE(call->Read(kPatience).ok());
  EXPECT_EQ(call->Finish(kPatience), absl::AbortedError("that was all"));
  const auto after = call->Read(kPatience);
  EXPECT_TRUE(after.ok() && !after->has_value());
  EXPECT_FALSE(call->Write(Serialize(request), kPatience).ok());
  EXPECT_FALSE(call->WritesDone(kPatience).ok());
}

// The first error.
absl::Status WriteToTheEnd(RawCall& call) {
  absl::Status status;
  for (int i = 0; i < 100'000 && status.ok(); ++i) status = call.Write(Serialize(OpenRequest(1)), kPatience);
  return status;
}

TEST(RawCall, WriteAfterTheServiceHasRefused) {
  ScriptedPush service(
      [](grpc::ServerContext&, PushStream&) { return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "full"); });
  const LoopbackServer server({&service});
  const auto call = Start(server, kPush);
  EXPECT_FALSE(WriteToTheEnd(*call).ok());
  EXPECT_EQ(call->Finish(kPatience), absl::ResourceExhaustedError("full"));
}

// A trainer waits for its memory, and asks for the status only afterwards.
TEST(RawCall, APeerThatEndsTheCallReleasesWhatWasBorrowed) {
  ScriptedPush service([](grpc::ServerContext&, PushStream& stream) {
    v1::PushRequest request;
    stream.Read(&request);
    return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "full");
  });
  const LoopbackServer server({&service});
  auto payload = std::make_shared<std::vector<std::byte>>(2 << 20);
  const std::weak_ptr<std::vector<std::byte>> watch = payload;
  const auto call = Start(server, kPush);
  for (int i = 0; i < 4; ++i) {
    if (!call->Write(MakeChunkMessage({}, *payload, payload), kPatience).ok()) break;
  }
  payload.reset();
  const auto end = std::chrono::steady_clock::now() + kPatience;
  while (!watch.expired() && std::chrono::steady_clock::now() < end) std::this_thread::yield();
  EXPECT_TRUE(watch.expired());
  EXPECT_FALSE(WriteToTheEnd(*call).ok());  // all may be sent before the call's end has come
  EXPECT_EQ(call->Finish(kPatience), absl::ResourceExhaustedError("full"));
}

TEST(RawCall, TheLastWordMayComeAfterThePeersLast) {
  ScriptedPush service([](grpc::ServerContext&, PushStream& stream) {
    v1::PushRequest request;
    stream.Read(&request);
    return grpc::Status::OK;
  });
  const LoopbackServer server({&service});
  const auto call = Start(server, kPush);
  ASSERT_TRUE(call->Write(Serialize(OpenRequest(1)), kPatience).ok());
  const auto message = call->Read(kPatience);
  ASSERT_TRUE(message.ok() && !message->has_value());
  EXPECT_TRUE(call->WritesDone(kPatience).ok());
  EXPECT_TRUE(call->Finish(kPatience).ok());
}

TEST(RawCall, UnknownMethod) {
  ScriptedPull service;
  const LoopbackServer server({&service});
  const auto call = Start(server, kPush);
  const auto message = call->Read(kPatience);
  EXPECT_TRUE(message.ok() && !message->has_value());
  EXPECT_EQ(call->Finish(kPatience).code(), absl::StatusCode::kUnimplemented);
}

TEST(RawCall, SilenceEndsARead) {
  std::atomic<bool> cancelled = false;
  ScriptedPush service([&](grpc::ServerContext& context, PushStream& stream) {
    AwaitCancellation(context, stream);
    cancelled = context.IsCancelled();
    return grpc::Status::OK;
  });
  {
    LoopbackServer server({&service});
    const auto call = Start(server, kPush);
    ASSERT_TRUE(call->Write(Serialize(OpenRequest(1)), kPatience).ok());
    const auto message = call->Read(kShort);
    EXPECT_EQ(message.status().code(), absl::StatusCode::kDeadlineExceeded);
    EXPECT_NE(message.status().message().find(kPush), std::string::npos) << message.status();
    // Finish tells the same reason, not that we cancelled.
    EXPECT_EQ(call->Finish(kPatience), message.status());
  }
  EXPECT_TRUE(cancelled);
}

TEST(RawCall, APeerThatTakesNothingEndsAWrite) {
  ScriptedPush service([](grpc::ServerContext& context, PushStream& stream) {
    v1::PushRequest request;
    stream.Read(&request);
    while (!context.IsCancelled()) std::this_thread::yield();
    return grpc::Status::OK;
  });
  const LoopbackServer server({&service});
  const auto call = Start(server, kPush);
  v1::PushRequest request;
  request.mutable_abort()->set_reason(std::string(1 << 20, 'x'));
  absl::Status status;
  for (int i = 0; i < 1000 && status.ok(); ++i) status = call->Write(Serialize(request), kShort);
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
}

TEST(RawCall, AnUnfinishedCallEndsInTime) {
  ScriptedPush service([](grpc::ServerContext& context, PushStream& stream) {
    AwaitCancellation(context, stream);
    return grpc::Status::OK;
  });
  const LoopbackServer server({&service});
  const auto call = Start(server, kPush);
  EXPECT_EQ(call->Finish(kShort).code(), absl::StatusCode::kDeadlineExceeded);
}

TEST(RawCall, CancelFromAnotherThreadEndsARead) {
  ScriptedPush service([](grpc::ServerContext& context, PushStream& stream) {
    AwaitCancellation(context, stream);
    return grpc::Status::OK;
  });
  const LoopbackServer server({&service});
  const auto call = Start(server, kPush);
  std::thread canceller([&] { call->Cancel(); });
  const auto message = call->Read(kPatience);
  EXPECT_TRUE(message.ok() && !message->has_value()) << message.status();
  canceller.join();
  EXPECT_EQ(call->Finish(kPatience).code(), absl::StatusCode::kCancelled);
}

TEST(RawCall, TheDestructorCancelsAndReleasesWhatWasBorrowed) {
  ScriptedPush service([](grpc::ServerContext& context, PushStream& stream) {
    AwaitCancellation(context, stream);
    return grpc::Status::OK;
  });
  auto payload = std::make_shared<std::vector<std::byte>>(1 << 20);
  const std::weak_ptr<std::vector<std::byte>> watch = payload;
  {
    LoopbackServer server({&service});
    for (int round = 0; round < 20; ++round) {
      const auto call = Start(server, kPush);
      for (int i = 0; i < 4; ++i) {
        ASSERT_TRUE(call->Write(MakeChunkMessage({}, *payload, payload), kPatience).ok());
      }
    }
  }
  payload.reset();
  // gRPC may let go of the last slices a little later, on a thread of its own.
  for (const auto end = std::chrono::steady_clock::now() + kPatience;
       !watch.expired() && std::chrono::steady_clock::now() < end;) {
    std::this_thread::yield();
  }
  EXPECT_TRUE(watch.expired());
}

TEST(RawCall, AServerThatDiesIsNoticed) {
  ScriptedPush service([](grpc::ServerContext& context, PushStream& stream) {
    AwaitCancellation(context, stream);
    return grpc::Status::OK;
  });
  LoopbackServer server({&service});
  const auto call = Start(server, kPush);
  ASSERT_TRUE(call->Write(Serialize(OpenRequest(1)), kPatience).ok());
  server.Stop();
  const auto message = call->Read(kPatience);
  EXPECT_TRUE(message.ok() && !message->has_value());
  EXPECT_FALSE(call->Finish(kPatience).ok());
}

}  // namespace
}  // namespace refit
