// Memory that is lent to gRPC is nobody else's until gRPC lets go of it: not when the write is done, but when the
// slice's destroy callback is called. Here it is written anew as soon as that may be.
//
// Within a process gRPC hands the lent bytes themselves to the reader, so that the thread sanitizer sees who reads and
// who overwrites them. Over a socket it cannot look into the kernel: there what arrives is compared.
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "common/net/byte_buffer.h"
#include "common/net/channel.h"
#include "common/net/raw_call.h"
#include "common/net/raw_reader.h"
#include "common/net/received_message.h"
#include "refit/v1/pull.pb.h"
#include "server/store/tensor_memory.h"
#include "tests/support/fleet.h"
#include "tests/support/push.h"
#include "tests/support/status_matchers.h"

namespace refit {
namespace {

using std::chrono::seconds;
using ::testing::HasSubstr;

constexpr seconds kPatience{30};
constexpr absl::Duration kLong = absl::Seconds(30);

// One call of any method, read in its own time, by the thread that wants to read.
class SlowServer {
 public:
  SlowServer() {
    grpc::ServerBuilder builder;
    ConfigureServer(builder, kMaxMessageBytes);
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterAsyncGenericService(&service_);
    completions_ = builder.AddCompletionQueue();
    server_ = builder.BuildAndStart();
    service_.RequestCall(&context_, &stream_, completions_.get(), completions_.get(), this);
  }
  ~SlowServer() {
    server_->Shutdown(std::chrono::system_clock::now());
    completions_->Shutdown();
    void* tag = nullptr;
    bool ok = false;
    while (completions_->Next(&tag, &ok)) continue;
  }
  SlowServer(const SlowServer&) = delete;
  SlowServer& operator=(const SlowServer&) = delete;

  std::shared_ptr<grpc::Channel> InProcess() { return server_->InProcessChannel(grpc::ChannelArguments()); }
  std::string address() const { return absl::StrCat("127.0.0.1:", port_); }

  // Waits for the call.
  bool Accept() { return Completed(); }
  // Nullopt when the client sends no more.
  std::optional<grpc::ByteBuffer> Read() {
    grpc::ByteBuffer message;
    stream_.Read(&message, this);
    if (!Completed()) return std::nullopt;
    return message;
  }
  void Finish() {
    stream_.Finish(grpc::Status::OK, this);
    (void)Completed();
  }

 private:
  bool Completed() {
    void* tag = nullptr;
    bool ok = false;
    return completions_->Next(&tag, &ok) && ok;
  }

  int port_ = 0;
  grpc::AsyncGenericService service_;
  grpc::GenericServerContext context_;
  grpc::GenericServerAsyncReaderWriter stream_{&context_};
  std::unique_ptr<grpc::ServerCompletionQueue> completions_;
  std::unique_ptr<grpc::Server> server_;
};

constexpr uint64_t kMessages = 2000;

uint64_t WordOf(uint64_t message, size_t place) { return (message + 1) * 0x9E3779B97F4A7C15 + place; }

// Word by word: the thread sanitizer sees neither memset nor, of single bytes, all.
void Fill(uint64_t message, absl::Span<std::byte> bytes) {
  for (size_t at = 0; at < bytes.size(); at += sizeof(uint64_t)) {
    const uint64_t word = WordOf(message, at);
    std::memcpy(&bytes[at], &word, sizeof(word));
  }
}

bool Is(uint64_t message, absl::Span<const std::byte> bytes) {
  bool right = true;
  for (size_t at = 0; at < bytes.size(); at += sizeof(uint64_t)) {
    uint64_t word = 0;
    std::memcpy(&word, &bytes[at], sizeof(word));
    right = right && word == WordOf(message, at);
  }
  return right;
}

// Writes numbered messages from memory for a few of them, each into a place that has come back.
class Lender {
 public:
  Lender(const std::shared_ptr<grpc::Channel>& channel, size_t lent_at_a_time, size_t message_bytes)
      : message_bytes_(message_bytes),
        memory_(lent_at_a_time * message_bytes),
        call_(RawCall::Start(channel, "/test/Lend")),
        thread_([this] { Run(); }) {}
  ~Lender() { thread_.join(); }
  Lender(const Lender&) = delete;
  Lender& operator=(const Lender&) = delete;

  // Until it has found no memory for the first time.
  bool AwaitWaiting() { return waiting_.WaitForNotificationWithTimeout(kLong); }
  uint64_t idle_bytes() const { return memory_.idle_bytes(); }

 private:
  void Run() {
    for (uint64_t message = 0; message < kMessages; ++message) {
      const std::shared_ptr<Buffer> buffer = Borrow();
      if (buffer == nullptr) return;
      Fill(message, buffer->span());
      ChunkHeader header;
      header.tensor = message;
      ASSERT_OK(call_->Write(MakeChunkMessage(header, buffer->span(), buffer), kPatience));
    }
    EXPECT_OK(call_->WritesDone(kPatience));
    EXPECT_OK(call_->Finish(kPatience));
  }

  // Null if nothing comes back.
  std::shared_ptr<Buffer> Borrow() {
    while (true) {
      const uint64_t seen = memory_.releases();
      absl::StatusOr<std::shared_ptr<Buffer>> buffer = memory_.TryGet(message_bytes_);
      if (!buffer.ok() || *buffer != nullptr) return buffer.ok() ? *buffer : nullptr;
      const auto back = std::make_shared<absl::Notification>();
      if (!memory_.Wait(seen, [back] { back->Notify(); })) continue;
      if (!waiting_.HasBeenNotified()) waiting_.Notify();
      if (!back->WaitForNotificationWithTimeout(kLong)) return nullptr;
    }
  }

  const size_t message_bytes_;
  TensorMemory memory_;
  const std::unique_ptr<RawCall> call_;
  absl::Notification waiting_;
  std::thread thread_;  // last: it uses all the others
};

// Where the message lies, as far as it lies there in one piece, or else in a copy.
void ExpectIs(const grpc::ByteBuffer& message, uint64_t number, size_t size) {
  const ReceivedMessage received(message);
  const auto chunk = received.DecodeChunk();
  ASSERT_TRUE(chunk.ok() && chunk->has_value());
  ASSERT_EQ((*chunk)->header.tensor, number);
  ASSERT_EQ((*chunk)->payload_bytes, size);
  bool right = false;
  received.ForEachRun((*chunk)->payload_offset, [&](absl::Span<const std::byte> run) {
    if (run.size() == size) right = Is(number, run);
  });
  if (!right) {
    std::vector<std::byte> copy(size);
    received.CopyAndDigest((*chunk)->payload_offset, copy.data());
    right = Is(number, copy);
  }
  EXPECT_TRUE(right) << "message " << number << " is not what was lent";
}

// The reader looks at the very memory that was lent. It has two messages at a time, which is all that there is: the
// writer goes on in the memory of each in the moment it is given up, and not before.
TEST(MutateAfterWrite, WithinAProcessMemoryComesBackWhenTheReaderHasLetGo) {
  constexpr size_t kHeld = 2;
  constexpr size_t kBytes = 256;
  SlowServer server;
  Lender lender(server.InProcess(), kHeld, kBytes);
  ASSERT_TRUE(server.Accept());
  std::deque<grpc::ByteBuffer> held;
  for (uint64_t next = 0; next < kMessages; ++next) {
    if (held.size() == kHeld) {
      ASSERT_TRUE(lender.AwaitWaiting());
      ExpectIs(held.front(), next - kHeld, kBytes);
      // After a look at the bytes: this one takes a lock of the writer's, and so would order the two.
      EXPECT_EQ(lender.idle_bytes(), 0u);
      held.pop_front();
    }
    std::optional<grpc::ByteBuffer> message = server.Read();
    ASSERT_TRUE(message.has_value()) << next;
    ExpectIs(*message, next, kBytes);
    held.push_back(*std::move(message));
  }
  held.clear();
  EXPECT_FALSE(server.Read().has_value());
  server.Finish();
}

// What the reader has made no room for yet waits within gRPC, and the writer for its memory.
TEST(MutateAfterWrite, OverASocketMemoryComesBackWhenTheBytesHaveLeft) {
  constexpr size_t kBytes = 16 << 10;
  SlowServer server;
  auto channel = Connect({.address = server.address()});
  ASSERT_OK(channel);
  Lender lender(*channel, /*lent_at_a_time=*/1, kBytes);
  ASSERT_TRUE(server.Accept());
  ASSERT_TRUE(lender.AwaitWaiting());
  for (uint64_t next = 0; next < kMessages; ++next) {
    const std::optional<grpc::ByteBuffer> message = server.Read();
    ASSERT_TRUE(message.has_value()) << next;
    ExpectIs(*message, next, kBytes);
  }
  EXPECT_FALSE(server.Read().has_value());
  server.Finish();
}

constexpr uint64_t kVersions = 12;
constexpr int kChunkBytes = 64 << 10;

// A worker that reads nothing after it has seen that its pull began.
class SlowPull {
 public:
  SlowPull(const std::string& address, uint64_t version) : version_(version) {
    // On a connection that never takes more than this ahead of its reader.
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 2 * kChunkBytes);
    const auto channel = grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
    v1::PullRequest request;
    request.set_model("default");
    request.mutable_version()->set_number(version);
    reader_ = RawReader::Start(channel, "/refit.v1.PullService/Pull", Serialize(request), kPatience);
    const auto header = reader_->Read(kPatience);
    EXPECT_TRUE(header.ok() && header->has_value()) << header.status();
  }

  // Reads what there still is: chunks, each of this version and the one that it says to be.
  void ExpectOwnBytesUntilItEnds(const TestModel& model) {
    uint64_t chunks = 0;
    while (true) {
      auto message = reader_->Read(kPatience);
      ASSERT_OK(message);
      if (!message->has_value()) break;
      const ReceivedMessage received(**std::move(message));
      const auto chunk = received.DecodeChunk();
      ASSERT_OK(chunk);
      if (!chunk->has_value()) continue;  // the manifest
      ++chunks;
      ExpectIs(received, **chunk, model);
    }
    EXPECT_GT(chunks, 0u);
    // Its version made way for new ones while chunks were under way.
    EXPECT_THAT(reader_->Finish(kPatience), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("retired")));
  }

 private:
  void ExpectIs(const ReceivedMessage& received, const DecodedChunk& chunk, const TestModel& model) const {
    const std::vector<std::byte> whole = model.Bytes(version_, chunk.header.tensor);
    ASSERT_LE(chunk.header.offset + chunk.payload_bytes, whole.size());
    std::vector<std::byte> bytes(chunk.payload_bytes);
    EXPECT_EQ(received.CopyAndDigest(chunk.payload_offset, bytes.data()), chunk.header.digest);
    EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), whole.begin() + static_cast<int64_t>(chunk.header.offset)))
        << "version " << version_ << ", tensor " << chunk.header.tensor << ", offset " << chunk.header.offset;
  }

  const uint64_t version_;
  std::unique_ptr<RawReader> reader_;
};

// Room for two versions: each new one takes the memory of one that slow workers still pull, all but what gRPC has of
// it.
TEST(MutateAfterWrite, WhatASlowWorkerReceivesIsOfItsVersion) {
  const TestModel model(/*tensors=*/8, /*rows=*/512, /*columns=*/512);
  ServerOptions options;
  options.store.chunk_bytes = kChunkBytes;
  options.store.retain_versions = 1;
  options.store.memory_budget_bytes = 2 * 9 * (1 << 20);
  const auto service = StartService(options);
  ASSERT_NE(service, nullptr);
  auto publisher = Publisher::Connect(WireTo(service->address()));
  ASSERT_OK(publisher);

  std::deque<SlowPull> pulls;
  for (uint64_t version = 1; version <= kVersions; ++version) {
    ASSERT_OK(model.Push(**publisher, version));
    pulls.emplace_back(service->address(), version);
    if (pulls.size() <= 4) continue;
    pulls.front().ExpectOwnBytesUntilItEnds(model);
    pulls.pop_front();
  }
}

}  // namespace
}  // namespace refit
