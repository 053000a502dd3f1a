// A trainer that embeds the service publishes at::Tensors in process; a worker pulls at::Tensors.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "refit/torch/client.h"
#include "refit/torch/server.h"
#include "tests/support/status_matchers.h"

namespace refit {
namespace {

using ::testing::HasSubstr;

constexpr char kDown[] = "model.language_model.layers.0.moe.experts.down_projs";

class TorchPublisher : public ::testing::Test {
 protected:
  void SetUp() override {
    ServerOptions options;
    options.listen = "127.0.0.1:0";
    auto server = RefitServer::Start(options);
    ASSERT_OK(server);
    server_ = *std::move(server);
    options_.version = 1;
  }

  std::unique_ptr<RefitServer> server_;
  PublishOptions options_;
};

TEST_F(TorchPublisher, AStateDictReachesAWorkerConverted) {
  const at::Tensor down = at::randn({4, 6, 8}).transpose(0, 1);  // [6, 4, 8], not contiguous
  const at::Tensor norm = at::randn({8});
  auto committed = PublishStateDict(*server_, options_, {{kDown, down}, {"model.norm.weight", norm}});
  ASSERT_OK(committed);
  EXPECT_EQ(committed->tensors, 3u);

  ChannelOptions channel;
  channel.address = server_->address();
  auto subscriber = Subscriber::Connect(channel);
  ASSERT_OK(subscriber);
  auto pulled = PullTensors(**subscriber, {});
  ASSERT_OK(pulled);
  ASSERT_EQ(pulled->tensors.size(), 3u);
  EXPECT_EQ(pulled->tensors[0].first, "model.language_model.layers.0.experts.down_proj");
  EXPECT_TRUE(pulled->tensors[0].second.equal(down.transpose(-2, -1)));
  EXPECT_EQ(pulled->tensors[1].first, "model.language_model.layers.0.router.per_expert_scale");
  EXPECT_TRUE(pulled->tensors[1].second.equal(at::ones({6})));
  EXPECT_TRUE(pulled->tensors[2].second.equal(norm));
}

TEST_F(TorchPublisher, WhatWasNotDeclaredIsRefused) {
  auto push = server_->OpenVersion(options_, {{"w", DType::kF32, {4}}});
  ASSERT_OK(push);
  EXPECT_THAT(PushTensor(**push, "v", at::zeros({4})),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("tensor v was not declared")));
  EXPECT_THAT(PushTensor(**push, "w", at::zeros({5})),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("w F32 [5] was declared as w F32 [4]")));
  EXPECT_THAT(PushTensor(**push, "w", at::zeros({4}, at::kDouble)), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_OK(PushTensor(**push, "w", at::zeros({4})));
  EXPECT_OK((*push)->Commit());
}

TEST_F(TorchPublisher, AnErrorPublishesNothing) {
  EXPECT_THAT(PublishStateDict(*server_, options_, {{"w", at::zeros({4})}, {kDown, at::zeros({4})}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(kDown)));
  EXPECT_THAT(PublishStateDict(*server_, options_, {{"w", at::Tensor()}}),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_OK(PublishStateDict(*server_, options_, {{"w", at::zeros({4})}}));
}

TEST_F(TorchPublisher, MemoryThatIsNotThereIsNamed) {
  const at::Tensor shrunk = at::ones({64});
  shrunk.storage().unsafeGetStorageImpl()->set_nbytes(8);
  const auto names_it = StatusIs(absl::StatusCode::kInvalidArgument,
                                 ::testing::AllOf(HasSubstr("tensor w F32 [64]"), HasSubstr("its storage has 8")));
  EXPECT_THAT(PublishStateDict(*server_, options_, {{"v", at::ones({4})}, {"w", shrunk}}), names_it);

  ChannelOptions channel;
  channel.address = server_->address();
  auto publisher = Publisher::Connect(channel);
  ASSERT_OK(publisher);
  PublishOptions options;
  options.version = 2;
  EXPECT_THAT(PublishStateDict(**publisher, options, {{"v", at::ones({4})}, {"w", shrunk}}), names_it);
  options.version = 3;
  EXPECT_OK(PublishStateDict(**publisher, options, {{"w", at::ones({64})}}));
}

}  // namespace
}  // namespace refit
