// Ranks push a version together; whatever goes wrong with one, no worker sees it, and the next version is unaffected.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "refit/inspector.h"
#include "refit/publisher.h"
#include "refit/server.h"
#include "refit/subscriber.h"
#include "tests/support/status_matchers.h"

namespace refit {
namespace {

using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Bytes = std::vector<std::byte>;

constexpr char kExperts[] = "model.language_model.layers.0.moe.experts.gate_and_up_projs";
constexpr char kNorm[] = "model.norm.weight";

// Two ranks with two of four experts each, and the norm on both.
const TensorSpec& Experts() {
  static const TensorSpec spec{kExperts, DType::kBF16, {4, 6, 8}};
  return spec;
}
const TensorSpec& Norm() {
  static const TensorSpec spec{kNorm, DType::kBF16, {16}};
  return spec;
}
TensorPart ExpertsOf(int64_t rank) { return {Experts(), {{2 * rank, 0, 0}, {2, 6, 8}}}; }

std::vector<TensorPart> ShardsOfRank(int64_t rank) { return {ExpertsOf(rank), TensorPart::Whole(Norm())}; }

Bytes Fill(const TensorPart& part, int value) { return Bytes(part.ByteSize(), static_cast<std::byte>(value)); }

class ShardedPush : public ::testing::Test {
 protected:
  void Start(ServerOptions options = {}) {
    options.listen = "127.0.0.1:0";
    options.limits.waiting_interval = std::chrono::milliseconds(50);
    auto server = RefitServer::Start(options);
    ASSERT_OK(server);
    server_ = *std::move(server);
  }
  void SetUp() override { Start(); }

  ChannelOptions Channel() const {
    ChannelOptions channel;
    channel.address = server_->address();
    return channel;
  }

  static PublishOptions Options(uint64_t version, uint32_t rank, uint32_t world = 2) {
    PublishOptions options;
    options.version = version;
    options.rank = rank;
    options.world = world;
    return options;
  }

  using Push = std::unique_ptr<VersionPush>;
  struct Opened {
    std::unique_ptr<Publisher> publisher;
    absl::StatusOr<Push> push;
  };

  // A connection of its own, as another process has it.
  Opened Open(const PublishOptions& options, std::vector<TensorPart> shards) {
    auto publisher = Publisher::Connect(Channel());
    if (!publisher.ok()) return {nullptr, publisher.status()};
    absl::StatusOr<Push> push = (*publisher)->OpenShards(options, std::move(shards));
    return {*std::move(publisher), std::move(push)};
  }

  // Both ranks open at the same time, as each waits for the other.
  std::vector<Opened> OpenBoth(uint64_t version, std::vector<TensorPart> of_rank_0, std::vector<TensorPart> of_rank_1) {
    std::vector<Opened> opened(2);
    std::thread other([&] { opened[1] = Open(Options(version, 1), std::move(of_rank_1)); });
    opened[0] = Open(Options(version, 0), std::move(of_rank_0));
    other.join();
    return opened;
  }

  std::vector<Opened> OpenBoth(uint64_t version) { return OpenBoth(version, ShardsOfRank(0), ShardsOfRank(1)); }

  static absl::Status PushShards(Opened& rank, int value) {
    for (const TensorPart& shard : (*rank.push)->shards()) {
      const bool same = shard.tensor.name == kNorm;
      const Bytes bytes = Fill(shard, same ? 9 : value);
      if (absl::Status status = (*rank.push)->Push(shard.tensor.name, bytes); !status.ok()) return status;
    }
    return absl::OkStatus();
  }

  // Commits on both ranks at once.
  static std::vector<absl::Status> CommitBoth(std::vector<Opened>& ranks) {
    std::vector<absl::Status> committed(2);
    std::thread other([&] { committed[1] = (*ranks[1].push)->Commit().status(); });
    committed[0] = (*ranks[0].push)->Commit().status();
    other.join();
    return committed;
  }

  void ExpectVersionCanBePushed(uint64_t version) {
    std::vector<Opened> ranks = OpenBoth(version);
    for (int rank = 0; rank < 2; ++rank) {
      ASSERT_OK(ranks[rank].push);
      ASSERT_OK(PushShards(ranks[rank], rank + 1));
    }
    for (const absl::Status& status : CommitBoth(ranks)) ASSERT_OK(status);
    auto pulled = Pull(version);
    ASSERT_OK(pulled);
    ASSERT_EQ(pulled->tensors.size(), 2u);
    const std::byte* experts = pulled->tensors[0].data->data();
    EXPECT_EQ(experts[0], std::byte{1});
    EXPECT_EQ(experts[Experts().ByteSize() - 1], std::byte{2});
  }

  absl::StatusOr<PulledVersion> Pull(uint64_t version) {
    auto subscriber = Subscriber::Connect(Channel());
    if (!subscriber.ok()) return subscriber.status();
    PullOptions options;
    options.version = version;
    return (*subscriber)->Pull(options);
  }

  // Every rank's push fails, one of them with `code` and all with a message that has these pieces.
  template <typename... Pieces>
  void ExpectBothFail(const std::vector<Opened>& ranks, absl::StatusCode code, const Pieces&... pieces) {
    for (const Opened& rank : ranks) {
      EXPECT_THAT(std::string(rank.push.status().message()), AllOf(HasSubstr(pieces)...));
    }
    EXPECT_TRUE(ranks[0].push.status().code() == code || ranks[1].push.status().code() == code)
        << ranks[0].push.status() << "\n"
        << ranks[1].push.status();
    EXPECT_THAT(Pull(1), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("aborted")));
    ExpectVersionCanBePushed(2);
  }

  std::unique_ptr<RefitServer> server_;
};

TEST_F(ShardedPush, TwoRanksMakeOneVersion) { ExpectVersionCanBePushed(1); }

TEST_F(ShardedPush, AMissingBoxIsNamed) {
  const auto ranks = OpenBoth(1, ShardsOfRank(0), {{Experts(), {{2, 0, 0}, {1, 6, 8}}}, TensorPart::Whole(Norm())});
  ExpectBothFail(ranks, absl::StatusCode::kInvalidArgument, kExperts, "no rank of 2 holds box [3:4, 0:6, 0:8]");
}

TEST_F(ShardedPush, AnOverlapNamesBothRanks) {
  const auto ranks = OpenBoth(1, ShardsOfRank(0), {{Experts(), {{1, 0, 0}, {3, 6, 8}}}, TensorPart::Whole(Norm())});
  ExpectBothFail(ranks, absl::StatusCode::kInvalidArgument, kExperts, "[0:2, 0:6, 0:8] of rank 0",
                 "overlaps box [1:4, 0:6, 0:8] of rank 1");
}

TEST_F(ShardedPush, ABoxOutOfBoundsIsRefusedBeforeItIsSent) {
  EXPECT_THAT(Open(Options(1, 0), {{Experts(), {{3, 0, 0}, {2, 6, 8}}}, TensorPart::Whole(Norm())}).push,
              StatusIs(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr(kExperts), HasSubstr("out of bounds"))));
  ExpectVersionCanBePushed(1);
}

TEST_F(ShardedPush, AMisshapenTensorIsNamed) {
  TensorSpec other = Experts();
  other.shape = {4, 8, 6};
  const auto ranks = OpenBoth(1, ShardsOfRank(0), {{other, {{2, 0, 0}, {2, 8, 6}}}, TensorPart::Whole(Norm())});
  ExpectBothFail(ranks, absl::StatusCode::kInvalidArgument, kExperts, "[4, 6, 8]", "[4, 8, 6]", "rank");
}

TEST_F(ShardedPush, AMistypedTensorIsNamed) {
  TensorSpec other = Experts();
  other.dtype = DType::kF32;
  const auto ranks = OpenBoth(1, ShardsOfRank(0), {{other, {{2, 0, 0}, {2, 6, 8}}}, TensorPart::Whole(Norm())});
  ExpectBothFail(ranks, absl::StatusCode::kInvalidArgument, kExperts, "F32", "BF16", "rank");
}

TEST_F(ShardedPush, RanksThatDeclareOtherTensorsAreTold) {
  const auto ranks = OpenBoth(1, ShardsOfRank(0), {ExpertsOf(1)});
  ExpectBothFail(ranks, absl::StatusCode::kInvalidArgument, "native tensors were declared");
}

TEST_F(ShardedPush, RanksThatWantOtherDTypesAreTold) {
  std::vector<Opened> ranks(2);
  std::thread other([&] {
    PublishOptions options = Options(1, 1);
    options.dtype = DType::kF32;
    ranks[1] = Open(options, ShardsOfRank(1));
  });
  ranks[0] = Open(Options(1, 0), ShardsOfRank(0));
  other.join();
  ExpectBothFail(ranks, absl::StatusCode::kInvalidArgument, "exclude_key_regex or keep_dtype_regex differ");
}

TEST_F(ShardedPush, ReplicasThatDifferAbortTheVersion) {
  std::vector<Opened> ranks = OpenBoth(1);
  for (Opened& rank : ranks) ASSERT_OK(rank.push);
  ASSERT_OK((*ranks[0].push)->Push(kExperts, Fill(ExpertsOf(0), 1)));
  ASSERT_OK((*ranks[1].push)->Push(kExperts, Fill(ExpertsOf(1), 2)));
  // Either may hear of it as early as with its push.
  absl::Status status = (*ranks[0].push)->Push(kNorm, Bytes(Norm().ByteSize(), std::byte{1}));
  status.Update((*ranks[1].push)->Push(kNorm, Bytes(Norm().ByteSize(), std::byte{2})));
  const std::vector<absl::Status> committed = CommitBoth(ranks);
  for (const absl::Status& rank : committed) {
    EXPECT_THAT(rank.code(), AnyOf(absl::StatusCode::kDataLoss, absl::StatusCode::kAborted));
    EXPECT_THAT(std::string(rank.message()), AllOf(HasSubstr(kNorm), HasSubstr("hold different bytes")));
  }
  EXPECT_THAT(Pull(1), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("hold different bytes")));
  ExpectVersionCanBePushed(2);
}

TEST_F(ShardedPush, ReplicasTravelOnce) {
  std::vector<Opened> ranks = OpenBoth(1);
  for (int rank = 0; rank < 2; ++rank) {
    ASSERT_OK(ranks[rank].push);
    ASSERT_OK(PushShards(ranks[rank], 5));
  }
  EXPECT_NE((*ranks[0].push)->digest_only(1), (*ranks[1].push)->digest_only(1));
  for (const absl::Status& status : CommitBoth(ranks)) ASSERT_OK(status);
  auto pulled = Pull(1);
  ASSERT_OK(pulled);
  EXPECT_EQ(pulled->result.version.received_bytes, Experts().ByteSize() + Norm().ByteSize());
  EXPECT_EQ(pulled->result.version.world, 2u);
  EXPECT_EQ(pulled->result.version.committed_ranks, 2u);
}

TEST_F(ShardedPush, ACommitWithoutAllBytesIsRefusedAndTellsTheOthers) {
  std::vector<Opened> ranks = OpenBoth(1);
  for (Opened& rank : ranks) ASSERT_OK(rank.push);
  ASSERT_OK(PushShards(ranks[0], 1));
  EXPECT_THAT((*ranks[1].push)->Commit(), StatusIs(absl::StatusCode::kFailedPrecondition,
                                                   AllOf(HasSubstr(kExperts), HasSubstr("box [2:4, 0:6, 0:8]"))));
  ASSERT_OK((*ranks[1].push)->Abort("gives up"));
  EXPECT_THAT((*ranks[0].push)->Commit(),
              StatusIs(absl::StatusCode::kAborted, AllOf(HasSubstr("rank 1"), HasSubstr("gives up"))));
  ExpectVersionCanBePushed(2);
}

TEST_F(ShardedPush, ARankThatDiesAbortsTheVersionOnAll) {
  std::vector<Opened> ranks = OpenBoth(1);
  for (Opened& rank : ranks) ASSERT_OK(rank.push);
  ASSERT_OK(PushShards(ranks[0], 1));
  const absl::Time begin = absl::Now();
  ranks[1].push->reset();
  EXPECT_THAT((*ranks[0].push)->Commit(), StatusIs(absl::StatusCode::kAborted, HasSubstr("rank 1")));
  EXPECT_LT(absl::Now() - begin, absl::Seconds(5));
  ExpectVersionCanBePushed(2);
}

TEST_F(ShardedPush, ARankThatDiesAfterItsWordAbortsTheVersionToo) {
  std::vector<Opened> ranks = OpenBoth(1);
  for (int rank = 0; rank < 2; ++rank) {
    ASSERT_OK(ranks[rank].push);
    ASSERT_OK(PushShards(ranks[rank], 1));
  }
  // Its commit waits for rank 0; then its process goes.
  absl::Mutex mutex;
  bool waits = false;
  PublishOptions options = Options(1, 1);
  std::thread dying([&] {
    auto publisher = Publisher::Connect(Channel());
    ASSERT_OK(publisher);
    EXPECT_THAT((*ranks[1].push)->Commit(), StatusIs(absl::StatusCode::kAborted));
  });
  auto inspector = Inspector::Connect(Channel());
  ASSERT_OK(inspector);
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  while (absl::Now() < deadline && !waits) {
    auto versions = (*inspector)->Versions("default");
    ASSERT_OK(versions);
    waits = versions->versions(0).committed_ranks() == 1;
  }
  ASSERT_TRUE(waits);
  ASSERT_OK(ranks[0].publisher->Abort("default", 1, "the job was stopped"));
  dying.join();
  EXPECT_THAT((*ranks[0].push)->Commit(), StatusIs(absl::StatusCode::kAborted, HasSubstr("the job was stopped")));
  ExpectVersionCanBePushed(2);
}

TEST_F(ShardedPush, ARankThatNeverComesIsNamed) {
  ServerOptions options;
  options.limits.rank_join_timeout = std::chrono::milliseconds(300);
  Start(options);
  EXPECT_THAT(
      Open(Options(1, 0, 3), ShardsOfRank(0)).push,
      StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("2 of 3 ranks did not declare their shards within "
                                                              "300ms: 1, 2")));
  ExpectVersionCanBePushed(2);
}

TEST_F(ShardedPush, ALateRankHearsOfTheAbortOnceAndDoesNotOpenTheVersionAnew) {
  ServerOptions options;
  options.limits.rank_join_timeout = std::chrono::milliseconds(200);
  Start(options);
  EXPECT_THAT(Open(Options(1, 0), ShardsOfRank(0)).push, StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_THAT(Open(Options(1, 1), ShardsOfRank(1)).push,
              StatusIs(absl::StatusCode::kAborted, HasSubstr("was aborted before rank 1 came")));
  ExpectVersionCanBePushed(1);
}

TEST_F(ShardedPush, ASecondStreamOfARankIsRefusedAndHarmsNothing) {
  std::vector<Opened> ranks = OpenBoth(1);
  for (Opened& rank : ranks) ASSERT_OK(rank.push);
  EXPECT_THAT(Open(Options(1, 0), ShardsOfRank(0)).push, StatusIs(absl::StatusCode::kAlreadyExists));
  for (int rank = 0; rank < 2; ++rank) ASSERT_OK(PushShards(ranks[rank], 1));
  for (const absl::Status& status : CommitBoth(ranks)) EXPECT_OK(status);
}

TEST_F(ShardedPush, ARankOfAnotherWorldIsRefusedAndHarmsNothing) {
  std::vector<Opened> ranks = OpenBoth(1);
  for (Opened& rank : ranks) ASSERT_OK(rank.push);
  EXPECT_THAT(Open(Options(1, 2, 3), ShardsOfRank(0)).push,
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("is pushed by 2 ranks")));
  for (int rank = 0; rank < 2; ++rank) ASSERT_OK(PushShards(ranks[rank], 1));
  for (const absl::Status& status : CommitBoth(ranks)) EXPECT_OK(status);
}

TEST_F(ShardedPush, WhoWaitsIsToldForWhom) {
  std::vector<uint32_t> missing;
  PublishOptions options = Options(1, 0);
  std::unique_ptr<std::thread> other;
  Opened late;
  options.on_waiting = [&](absl::Span<const uint32_t> ranks) {
    missing.assign(ranks.begin(), ranks.end());
    if (other == nullptr) {
      other = std::make_unique<std::thread>([&] { late = Open(Options(1, 1), ShardsOfRank(1)); });
    }
  };
  const Opened first = Open(options, ShardsOfRank(0));
  ASSERT_NE(other, nullptr);
  other->join();
  ASSERT_OK(first.push);
  ASSERT_OK(late.push);
  EXPECT_THAT(missing, ElementsAre(1));
}

TEST_F(ShardedPush, ARankThatWaitsCanBeCancelled) {
  auto publisher = Publisher::Connect(Channel());
  ASSERT_OK(publisher);
  PublishOptions options = Options(1, 0);
  options.on_waiting = [&](absl::Span<const uint32_t>) { (*publisher)->Cancel(); };
  EXPECT_THAT((*publisher)->OpenShards(options, ShardsOfRank(0)), StatusIs(absl::StatusCode::kCancelled));
  EXPECT_THAT((*publisher)->AwaitWorkers({}), StatusIs(absl::StatusCode::kCancelled));
  ExpectVersionCanBePushed(2);
}

TEST_F(ShardedPush, AManifestIsKnownBeforeAllRanksHaveCome) {
  absl::StatusOr<PulledVersion> pulled;
  std::unique_ptr<std::thread> worker;
  Opened late;
  std::unique_ptr<std::thread> other;
  PublishOptions options = Options(1, 0);
  options.on_waiting = [&](absl::Span<const uint32_t>) {
    if (worker != nullptr) return;
    worker = std::make_unique<std::thread>([&] { pulled = Pull(1); });
    auto inspector = Inspector::Connect(Channel());
    ASSERT_OK(inspector);
    auto versions = (*inspector)->Versions("default");
    ASSERT_OK(versions);
    EXPECT_EQ(versions->versions(0).tensors(), 2u);
    EXPECT_EQ(versions->versions(0).joined_ranks(), 1u);
    other = std::make_unique<std::thread>([&] { late = Open(Options(1, 1), ShardsOfRank(1)); });
  };
  std::vector<Opened> ranks(2);
  ranks[0] = Open(options, ShardsOfRank(0));
  ASSERT_NE(other, nullptr);
  other->join();
  ranks[1] = std::move(late);
  for (int rank = 0; rank < 2; ++rank) {
    ASSERT_OK(ranks[rank].push);
    ASSERT_OK(PushShards(ranks[rank], 3));
  }
  for (const absl::Status& status : CommitBoth(ranks)) EXPECT_OK(status);
  worker->join();
  EXPECT_OK(pulled);
}

TEST_F(ShardedPush, AnEmptyBoxHoldsNothing) {
  std::vector<Opened> ranks = OpenBoth(1, {TensorPart::Whole(Experts()), {Norm(), {{16}, {0}}}},
                                       {{Experts(), {{0, 0, 0}, {0, 6, 8}}}, TensorPart::Whole(Norm())});
  for (int rank = 0; rank < 2; ++rank) {
    ASSERT_OK(ranks[rank].push);
    ASSERT_OK(PushShards(ranks[rank], 4));
  }
  for (const absl::Status& status : CommitBoth(ranks)) ASSERT_OK(status);
  EXPECT_OK(Pull(1));
}

TEST_F(ShardedPush, WhatIsExcludedNeedNotBeSent) {
  PublishOptions options = Options(1, 0, 1);
  options.exclude_key_regex = "model\\.norm.*";
  const Opened only = Open(options, {TensorPart::Whole(Experts()), TensorPart::Whole(Norm())});
  ASSERT_OK(only.push);
  VersionPush& push = **only.push;
  EXPECT_FALSE(push.unneeded(0));
  EXPECT_TRUE(push.unneeded(1));
  ASSERT_OK(push.Push(kExperts, Bytes(Experts().ByteSize())));
  ASSERT_OK(push.Push(kNorm, Bytes(Norm().ByteSize())));  // may be pushed all the same
  const auto committed = push.Commit();
  ASSERT_OK(committed);
  EXPECT_EQ(committed->tensors, 1u);
  EXPECT_EQ(committed->declared_bytes, Experts().ByteSize());
  EXPECT_EQ(committed->received_bytes, Experts().ByteSize());
}

TEST_F(ShardedPush, WhatIsExcludedMayBeLeftOut) {
  PublishOptions options = Options(1, 0, 1);
  options.exclude_key_regex = "model\\.norm.*";
  const Opened only = Open(options, {TensorPart::Whole(Experts()), TensorPart::Whole(Norm())});
  ASSERT_OK(only.push);
  ASSERT_OK((*only.push)->Push(kExperts, Bytes(Experts().ByteSize())));
  EXPECT_OK((*only.push)->Commit());
}

TEST_F(ShardedPush, TooManyRanksAreRefused) {
  EXPECT_THAT(Open(Options(1, 0, 5000), ShardsOfRank(0)).push, StatusIs(absl::StatusCode::kResourceExhausted));
}

}  // namespace
}  // namespace refit
