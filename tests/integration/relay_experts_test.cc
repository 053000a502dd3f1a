// Versions whose experts are tensors of their own, through relays: a worker with expert parallelism gets its experts.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "refit/inspector.h"
#include "refit/publisher.h"
#include "refit/relay.h"
#include "refit/subscriber.h"
#include "tests/support/eventually.h"
#include "tests/support/fleet.h"

namespace refit {
namespace {

using Bytes = std::vector<std::byte>;
using Tensors = std::map<std::string, std::pair<Shape, Bytes>>;

constexpr int kExperts = 5;

const std::vector<TensorSpec> kNative = {
    {"model.layers.0.input_layernorm.weight", DType::kBF16, {6}},
    {"model.layers.0.mlp.experts.gate_and_up_projs", DType::kBF16, {kExperts, 6, 8}},
    {"model.layers.0.mlp.experts.down_projs", DType::kBF16, {kExperts, 4, 6}},
};

Bytes Values(const TensorSpec& spec) {
  Bytes bytes(spec.ByteSize());
  for (size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = static_cast<std::byte>((i * 2654435761U + spec.name.size()) >> 9);
  return bytes;
}

PullOptions Rank(uint64_t rank, uint64_t ranks) {
  PullOptions options;
  options.rules.push_back({LayoutRule::Scope::kExperts, "", 0, rank, ranks});
  return options;
}

class RelayExperts : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = StartService();
    relay_ = StartBelow(*root_);
    lowest_ = StartBelow(*relay_);
    auto publisher = Publisher::Connect(WireTo(root_->address()));
    ASSERT_OK(publisher);
    PublishOptions options;
    options.version = 1;
    options.adapter = "qwen3_moe";
    auto push = (*publisher)->Open(options, kNative);
    ASSERT_OK(push);
    for (const TensorSpec& spec : kNative) ASSERT_OK((*push)->Push(spec.name, Values(spec)));
    ASSERT_OK((*push)->Commit());
    for (const auto& server : {relay_.get(), lowest_.get()}) ASSERT_TRUE(Eventually([&] { return HasIt(*server); }));
  }

  static std::unique_ptr<RefitServer> StartBelow(const RefitServer& above) {
    ServerOptions options;
    options.listen = "127.0.0.1:0";
    options.upstream = WireTo(above.address());
    auto relay = StartServer(options);
    EXPECT_OK(relay);
    return relay.ok() ? *std::move(relay) : nullptr;
  }

  static bool HasIt(const RefitServer& server) {
    auto inspector = Inspector::Connect(WireTo(server.address()));
    EXPECT_OK(inspector);
    auto versions = (*inspector)->Versions();
    return versions.ok() && versions->versions_size() == 1 &&
           versions->versions(0).state() == v1::VERSION_STATE_COMMITTED;
  }

  static Tensors Pull(const RefitServer& server, const PullOptions& options) {
    auto subscriber = Subscriber::Connect(WireTo(server.address()));
    EXPECT_OK(subscriber);
    auto pulled = (*subscriber)->Pull(options);
    EXPECT_OK(pulled);
    Tensors tensors;
    if (!pulled.ok()) return tensors;
    for (const PulledTensor& tensor : pulled->tensors) {
      const std::byte* data = tensor.data->data();
      tensors[tensor.part.tensor.name] = {tensor.part.box.sizes, Bytes(data, data + tensor.part.ByteSize())};
    }
    return tensors;
  }

  std::unique_ptr<RefitServer> root_;
  std::unique_ptr<RefitServer> relay_;
  std::unique_ptr<RefitServer> lowest_;
};

TEST_F(RelayExperts, EachRankGetsItsExpertsWhereverItPulls) {
  const Tensors whole = Pull(*root_, Rank(0, 1));
  EXPECT_EQ(whole.size(), 1u + 3 * kExperts);
  Tensors together;
  for (uint64_t rank = 0; rank < 2; ++rank) {
    const Tensors mine = Pull(*root_, Rank(rank, 2));
    EXPECT_EQ(mine.size(), 1u + 3 * (rank == 0 ? 3 : 2));
    EXPECT_EQ(Pull(*relay_, Rank(rank, 2)), mine);
    EXPECT_EQ(Pull(*lowest_, Rank(rank, 2)), mine);
    for (int expert = 0; expert < kExperts; ++expert) {
      const bool has = mine.count(absl::StrCat("model.layers.0.mlp.experts.", expert, ".down_proj.weight")) == 1;
      EXPECT_EQ(has, (expert < 3) == (rank == 0)) << expert;
    }
    together.insert(mine.begin(), mine.end());
  }
  EXPECT_EQ(together, whole);
}

}  // namespace
}  // namespace refit
