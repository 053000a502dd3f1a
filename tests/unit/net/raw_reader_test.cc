#include "common/net/raw_reader.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <chrono>
#include <memory>
#include <vector>

#include "common/net/byte_buffer.h"
#include "common/net/channel.h"
#include "refit/v1/pull.grpc.pb.h"
#include "tests/support/sanitized.h"
#include "tests/unit/net/loopback_server.h"

namespace refit {
namespace {

constexpr size_t kChunkBytes = 2 << 20;
constexpr int64_t kPagesOfAChunk = static_cast<int64_t>(kChunkBytes / 4096);

// Of the whole process: also of gRPC's threads, which receive too.
int64_t PageFaults() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_minflt;
}

// Sends chunks of 2 MiB that it does not copy, until the client is gone.
class Chunks final : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  Chunks() { Next(); }
  void OnWriteDone(bool ok) override { ok ? Next() : Finish(grpc::Status::OK); }
  void OnDone() override { std::unique_ptr<Chunks>(this).reset(); }

 private:
  void Next() {
    message_ = MakeChunkMessage({}, *payload_, payload_);
    StartWrite(&message_);
  }

  const std::shared_ptr<const std::vector<std::byte>> payload_ =
      std::make_shared<const std::vector<std::byte>>(kChunkBytes);
  grpc::ByteBuffer message_;
};

class ChunkService final : public v1::PullService::WithRawCallbackMethod_Pull<v1::PullService::Service> {
  grpc::ServerWriteReactor<grpc::ByteBuffer>* Pull(grpc::CallbackServerContext*, const grpc::ByteBuffer*) override {
    return std::make_unique<Chunks>().release();
  }
};

TEST(RawReaderTest, FaultsTheMemoryInOnce) {
  if (kSanitized) GTEST_SKIP() << "a sanitizer has its own allocator";
  constexpr std::chrono::seconds kPatience(60);
  ChunkService service;
  const LoopbackServer server({&service});
  const auto channel = Connect(server.channel_options());
  ASSERT_TRUE(channel.ok()) << channel.status();
  const auto reader = RawReader::Start(*channel, "/refit.v1.PullService/Pull", grpc::ByteBuffer(), kPatience);
  const auto faults_of = [&](int messages) {
    const int64_t before = PageFaults();
    for (int i = 0; i < messages; ++i) EXPECT_TRUE(reader->Read(kPatience)->has_value());
    return PageFaults() - before;
  };
  faults_of(500);
  const int64_t faults = faults_of(200);
  EXPECT_LT(faults, 200 * kPagesOfAChunk / 3);
}

}  // namespace
}  // namespace refit
