// Workers ask for parts of tensors: what is sent, what it costs, and what is refused.
#include <gtest/gtest.h>

#include <memory>
#include <numeric>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "refit/inspector.h"
#include "refit/publisher.h"
#include "refit/server.h"
#include "refit/subscriber.h"
#include "tests/support/status_matchers.h"

namespace refit {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr char kDown[] = "model.language_model.layers.0.moe.experts.down_projs";
constexpr char kHfDown[] = "model.language_model.layers.0.experts.down_proj";
constexpr char kWeight[] = "model.weight";
constexpr uint64_t kChunkBytes = 4096;

std::vector<std::byte> Pattern(const TensorSpec& spec) {
  std::vector<std::byte> bytes(spec.ByteSize());
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 2654435761U >> 13);
  return bytes;
}

class SlicedPull : public ::testing::Test {
 protected:
  void SetUp() override {
    ServerOptions options;
    options.listen = "127.0.0.1:0";
    options.store.chunk_bytes = kChunkBytes;
    auto server = RefitServer::Start(options);
    ASSERT_OK(server);
    server_ = *std::move(server);
    channel_.address = server_->address();
    auto publisher = Publisher::Connect(channel_);
    ASSERT_OK(publisher);
    publisher_ = *std::move(publisher);
    auto subscriber = Subscriber::Connect(channel_);
    ASSERT_OK(subscriber);
    subscriber_ = *std::move(subscriber);
    auto push = Open(1);
    ASSERT_OK(push);
    for (const TensorSpec& spec : native_) ASSERT_OK((*push)->Push(spec.name, Pattern(spec)));
    ASSERT_OK((*push)->Commit());
  }

  absl::StatusOr<std::unique_ptr<VersionPush>> Open(uint64_t version) {
    PublishOptions options;
    options.version = version;
    return publisher_->Open(options, native_);
  }

  static PullOptions Part(const std::string& name, uint32_t dimension, uint64_t part, uint64_t parts) {
    PullOptions options;
    options.names = {name};
    options.rules.push_back({LayoutRule::Scope::kAny, name, dimension, part, parts});
    return options;
  }

  v1::GetServerInfoResponse Info() {
    auto inspector = Inspector::Connect(channel_);
    EXPECT_OK(inspector);
    auto info = (*inspector)->ServerInfo();
    EXPECT_OK(info);
    return *info;
  }

  const std::vector<TensorSpec> native_ = {{kWeight, DType::kF32, {64, 96}}, {kDown, DType::kF32, {8, 24, 40}}};
  ChannelOptions channel_;
  std::unique_ptr<RefitServer> server_;
  std::unique_ptr<Publisher> publisher_;
  std::unique_ptr<Subscriber> subscriber_;
};

TEST_F(SlicedPull, AContiguousPartIsBorrowed) {
  auto pulled = subscriber_->Pull(Part(kWeight, 0, 1, 3));
  ASSERT_OK(pulled);
  ASSERT_EQ(pulled->tensors.size(), 1u);
  const PulledTensor& tensor = pulled->tensors[0];
  EXPECT_EQ(tensor.part.tensor, native_[0]);
  EXPECT_EQ(tensor.part.box, (Box{{22, 0}, {21, 96}}));
  const std::vector<std::byte> whole = Pattern(native_[0]);
  EXPECT_TRUE(std::equal(whole.begin() + 22 * 96 * 4, whole.begin() + 43 * 96 * 4, tensor.data->data()));
  EXPECT_EQ(pulled->result.bytes, 21u * 96 * 4);
  EXPECT_EQ(Info().packed_bytes(), 0u);
}

TEST_F(SlicedPull, AStridedPartIsPackedOnceForAllWhoAsk) {
  const PullOptions options = Part(kWeight, 1, 2, 3);
  std::vector<absl::StatusOr<PulledVersion>> pulled(4);
  std::vector<std::thread> workers;
  workers.reserve(pulled.size());
  for (auto& mine : pulled) workers.emplace_back([&] { mine = subscriber_->Pull(options); });
  for (std::thread& worker : workers) worker.join();
  const std::vector<std::byte> whole = Pattern(native_[0]);
  for (const auto& mine : pulled) {
    ASSERT_OK(mine);
    const PulledTensor& tensor = mine->tensors.at(0);
    for (int row = 0; row < 64; ++row) {
      ASSERT_TRUE(std::equal(whole.begin() + (row * 96 + 64) * 4, whole.begin() + (row + 1) * 96 * 4,
                             tensor.data->data() + row * 32 * 4));
    }
  }
  EXPECT_EQ(Info().packed_bytes(), 64u * 32 * 4);
  EXPECT_EQ(Info().shared_packed_bytes(), 3 * 64u * 32 * 4);
}

TEST_F(SlicedPull, PartsStreamWhileTheVersionIsPushed) {
  auto push = Open(2);
  ASSERT_OK(push);
  absl::StatusOr<PulledVersion> pulled;
  std::thread worker([&] {
    PullOptions options = Part(kHfDown, 1, 1, 4);
    options.version = 2;
    pulled = subscriber_->Pull(options);
  });
  for (size_t i = native_.size(); i-- > 0;) ASSERT_OK((*push)->Push(native_[i].name, Pattern(native_[i])));
  ASSERT_OK((*push)->Commit());
  worker.join();
  ASSERT_OK(pulled);
  EXPECT_EQ(pulled->tensors[0].part.box, (Box{{0, 10, 0}, {8, 10, 24}}));
}

TEST_F(SlicedPull, ExpertsOfARankLeaveOtherTensorsWhole) {
  PullOptions options;
  options.rules.push_back({LayoutRule::Scope::kExperts, "", 0, 2, 3});
  auto pulled = subscriber_->Pull(options);
  ASSERT_OK(pulled);
  ASSERT_EQ(pulled->tensors.size(), 3u);
  for (const PulledTensor& tensor : pulled->tensors) {
    EXPECT_EQ(tensor.part.is_whole(), tensor.part.tensor.name != kHfDown) << tensor.part.ToString();
  }
  EXPECT_EQ(pulled->tensors[1].part.box, (Box{{6, 0, 0}, {2, 40, 24}}));
}

TEST_F(SlicedPull, MorePartsThanElementsLeaveSomeEmpty) {
  auto pulled = subscriber_->Pull(Part(kHfDown, 0, 8, 9));
  ASSERT_OK(pulled);
  EXPECT_EQ(pulled->tensors.at(0).part.ByteSize(), 0u);
  EXPECT_EQ(pulled->result.bytes, 0u);
}

TEST_F(SlicedPull, RulesThatMakeNoSenseAreRefused) {
  EXPECT_THAT(subscriber_->Pull(Part(kWeight, 2, 0, 2)),
              StatusIs(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr(kWeight), HasSubstr("no such dimension"))));
  EXPECT_THAT(subscriber_->Pull(Part(kWeight, 0, 2, 2)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("part 2 of 2")));
  EXPECT_THAT(subscriber_->Pull(Part(kWeight, 0, 0, 0)), StatusIs(absl::StatusCode::kInvalidArgument));
  PullOptions unknown;
  unknown.rules.push_back({LayoutRule::Scope::kAny, "no_such_proj", 0, 0, 2});
  EXPECT_THAT(subscriber_->Pull(unknown), StatusIs(absl::StatusCode::kNotFound, HasSubstr("no_such_proj")));
  unknown.rules[0].pattern = "(";
  EXPECT_THAT(subscriber_->Pull(unknown), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_F(SlicedPull, BoxesThatMakeNoSenseAreRefused) {
  PullOptions options;
  options.boxes = {{kWeight, {{0, 90}, {64, 7}}}};
  EXPECT_THAT(subscriber_->Pull(options),
              StatusIs(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr(kWeight), HasSubstr("out of bounds"))));
  options.boxes = {{kWeight, {{0}, {64}}}};
  EXPECT_THAT(subscriber_->Pull(options), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(kWeight)));
  options.boxes = {{"model.wait", {{0}, {64}}}};
  EXPECT_THAT(subscriber_->Pull(options), StatusIs(absl::StatusCode::kNotFound, HasSubstr("model.wait")));
  options.boxes = {{kWeight, {{0, 0}, {1, 1}}}, {kWeight, {{0, 0}, {2, 2}}}};
  EXPECT_THAT(subscriber_->Pull(options), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("two boxes")));
}

}  // namespace
}  // namespace refit
