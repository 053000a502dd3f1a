#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "common/net/messages.h"
#include "common/wire/digest.h"
#include "refit/torch/client.h"
#include "refit/v1/pull.grpc.pb.h"
#include "refit/v1/push.grpc.pb.h"
#include "tests/unit/net/loopback_server.h"

namespace refit {
namespace {

// Gives to workers, unconverted, what the last push brought: enough of a service for one small version.
class EchoService final {
 public:
  EchoService() : push(*this), pull(*this) {}

  class PushService final : public v1::PushService::Service {
   public:
    explicit PushService(EchoService& echo) : echo_(echo) {}
    grpc::Status Push(grpc::ServerContext*,
                      grpc::ServerReaderWriter<v1::PushResponse, v1::PushRequest>* stream) override {
      v1::PushRequest request;
      while (stream->Read(&request)) {
        v1::PushResponse response;
        if (request.has_declare()) {
          for (const v1::DeclaredTensor& tensor : request.declare().tensors()) echo_.specs.push_back(tensor.tensor());
          response.mutable_opened()->mutable_summary()->set_chunk_bytes(kDefaultChunkBytes);
          response.mutable_opened()->set_max_chunk_bytes(kDefaultChunkBytes);
        } else if (request.has_chunk()) {
          echo_.chunks[request.chunk().tensor()] = request.chunk();
          continue;
        } else if (request.has_chunks()) {
          for (const v1::Chunk& chunk : request.chunks().chunks()) echo_.chunks[chunk.tensor()] = chunk;
          continue;
        } else if (request.has_commit()) {
          response.mutable_committed();
        } else if (request.has_abort()) {
          echo_.abort_reason = request.abort().reason();
          response.mutable_aborted();
        } else {
          continue;
        }
        stream->Write(response);
      }
      return grpc::Status::OK;
    }

   private:
    EchoService& echo_;
  };

  class PullService final : public v1::PullService::Service {
   public:
    explicit PullService(EchoService& echo) : echo_(echo) {}
    grpc::Status Pull(grpc::ServerContext*, const v1::PullRequest*,
                      grpc::ServerWriter<v1::PullResponse>* writer) override {
      v1::PullResponse header;
      v1::PullResponse manifest;
      v1::VersionSummary& summary = *header.mutable_header();
      summary.set_model("default");
      summary.set_version(1);
      summary.set_chunk_bytes(kDefaultChunkBytes);
      summary.set_tensors(echo_.specs.size());
      ManifestDigester digester;
      for (size_t i = 0; i < echo_.specs.size(); ++i) {
        const TensorSpec spec = *FromProto(echo_.specs[i]);
        v1::ManifestEntry& entry = *manifest.mutable_manifest()->add_entries();
        *entry.mutable_tensor() = echo_.specs[i];
        entry.set_bytes(spec.ByteSize());
        summary.set_bytes(summary.bytes() + spec.ByteSize());
        v1::Chunk& chunk = echo_.chunks[i];
        chunk.set_tensor(i);
        if (spec.ByteSize() == 0) {
          chunk.set_digest(DigestBytes({}));
          chunk.set_tensor_digest(TensorDigest({}));
        }
        digester.Add(spec, chunk.tensor_digest());
      }
      manifest.mutable_manifest()->set_last(true);
      writer->Write(header);
      writer->Write(manifest);
      for (const auto& [index, chunk] : echo_.chunks) {
        v1::PullResponse response;
        *response.mutable_chunk() = chunk;
        writer->Write(response);
      }
      v1::PullResponse end;
      *end.mutable_committed()->mutable_summary() = summary;
      end.mutable_committed()->mutable_summary()->set_state(v1::VERSION_STATE_COMMITTED);
      end.mutable_committed()->mutable_summary()->set_manifest_digest(digester.Finish());
      end.mutable_committed()->set_selection_digest(digester.Finish());
      writer->Write(end);
      return grpc::Status::OK;
    }

   private:
    EchoService& echo_;
  };

  std::vector<v1::TensorSpec> specs;
  std::map<uint64_t, v1::Chunk> chunks;
  std::string abort_reason;
  PushService push;
  PullService pull;
};

class TorchClientTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto publisher = Publisher::Connect(server_.channel_options());
    ASSERT_TRUE(publisher.ok()) << publisher.status();
    publisher_ = *std::move(publisher);
    auto subscriber = Subscriber::Connect(server_.channel_options());
    ASSERT_TRUE(subscriber.ok()) << subscriber.status();
    subscriber_ = *std::move(subscriber);
  }

  static PublishOptions Options() {
    PublishOptions options;
    options.version = 1;
    return options;
  }

  EchoService service_;
  LoopbackServer server_{{&service_.push, &service_.pull}};
  std::unique_ptr<Publisher> publisher_;
  std::unique_ptr<Subscriber> subscriber_;
};

TEST_F(TorchClientTest, TensorsComeBackEqual) {
  const NamedTensors tensors = {
      {"contiguous", at::rand({5, 7}).to(at::kBFloat16)},
      {"transposed", at::rand({4, 6}).transpose(0, 1)},
      {"strided", at::arange(100, at::kLong).slice(0, 3, 90, 7)},
      {"expanded", at::rand({1, 3}).expand({4, 3})},
      {"scalar", at::scalar_tensor(2.5, at::kDouble)},
      {"empty", at::empty({0, 3}, at::kHalf)},
      {"bool", at::rand({9}) > 0.5},
  };
  const auto summary = PublishStateDict(*publisher_, Options(), tensors);
  ASSERT_TRUE(summary.ok()) << summary.status();
  auto pulled = PullTensors(*subscriber_);
  ASSERT_TRUE(pulled.ok()) << pulled.status();
  subscriber_.reset();  // the tensors own their memory
  EXPECT_EQ(pulled->result.version.version, 1u);
  ASSERT_EQ(pulled->tensors.size(), tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    const auto& [name, tensor] = pulled->tensors[i];
    EXPECT_EQ(name, tensors[i].first);
    EXPECT_EQ(tensor.scalar_type(), tensors[i].second.scalar_type()) << name;
    EXPECT_TRUE(at::equal(tensor, tensors[i].second)) << name;
  }
}

TEST_F(TorchClientTest, WhatWasDeclaredCounts) {
  const auto push = publisher_->Open(Options(), {{"w", DType::kF32, {2, 3}}});
  ASSERT_TRUE(push.ok()) << push.status();
  EXPECT_EQ(PushTensor(**push, "v", at::zeros({2, 3})).code(), absl::StatusCode::kNotFound);
  for (const at::Tensor& wrong : {at::zeros({3, 2}), at::zeros({2, 3}, at::kInt)}) {
    const absl::Status status = PushTensor(**push, "w", wrong);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(status.message().find("was declared as w F32 [2, 3]"), std::string::npos) << status;
  }
  EXPECT_EQ(PushTensor(**push, "w", at::Tensor()).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(PushTensor(**push, "w", at::zeros({2, 3})).ok());
  EXPECT_TRUE((*push)->Commit().ok());
}

TEST_F(TorchClientTest, AShardIsATensorOfItsBoxsShape) {
  const auto push = publisher_->OpenShards(Options(), {{{"w", DType::kF32, {4, 6}}, {{0, 3}, {4, 3}}}});
  ASSERT_TRUE(push.ok()) << push.status();
  const absl::Status status = PushTensor(**push, "w", at::zeros({4, 6}));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("was declared as w F32 [4, 6] box [0:4, 3:6]"), std::string::npos) << status;
  const at::Tensor whole = at::rand({4, 6});
  EXPECT_TRUE(PushTensor(**push, "w", whole.slice(1, 3, 6)).ok());
  ASSERT_TRUE((*push)->Commit().ok());
  const at::Tensor shard = whole.slice(1, 3, 6).contiguous();
  EXPECT_EQ(service_.chunks[0].payload(), std::string(static_cast<const char*>(shard.data_ptr()), shard.nbytes()));
}

TEST_F(TorchClientTest, TensorsOfNoKnownTypeAreRefused) {
  const absl::Status status =
      PublishStateDict(*publisher_, Options(), {{"z", at::zeros({2}, at::kComplexDouble)}}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("z"), std::string::npos) << status;
  EXPECT_TRUE(service_.specs.empty());
}

TEST_F(TorchClientTest, AFailureAbortsTheVersion) {
  // The same name twice: the second push finds the first tensor whole already.
  const absl::Status status =
      PublishStateDict(*publisher_, Options(), {{"w", at::zeros({2})}, {"w", at::zeros({2})}}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kOutOfRange) << status;
  EXPECT_NE(service_.abort_reason.find("tensor w"), std::string::npos) << service_.abort_reason;
}

}  // namespace
}  // namespace refit
