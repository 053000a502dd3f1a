// A trainer was started anew while its old run still pushes: the old one is fenced off, and the two never mix.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "refit/inspector.h"
#include "refit/publisher.h"
#include "refit/server.h"
#include "refit/subscriber.h"
#include "tests/support/status_matchers.h"

namespace refit {
namespace {

using absl::StatusCode;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Bytes = std::vector<std::byte>;

constexpr int64_t kElements = 64 << 10;
const std::vector<TensorSpec> kSpecs = {{"a", DType::kU8, {kElements}}, {"b", DType::kU8, {kElements}}};

Bytes Fill(uint64_t value, size_t size = kElements) { return Bytes(size, static_cast<std::byte>(value)); }

class TwoTrainers : public ::testing::Test {
 protected:
  void SetUp() override {
    ServerOptions options;
    options.listen = "127.0.0.1:0";
    options.store.chunk_bytes = 4096;
    options.limits.waiting_interval = std::chrono::milliseconds(50);
    auto server = RefitServer::Start(options);
    ASSERT_OK(server);
    server_ = *std::move(server);
  }

  ChannelOptions Channel() const {
    ChannelOptions options;
    options.address = server_->address();
    return options;
  }

  static PublishOptions Options(uint64_t version, uint64_t epoch) {
    PublishOptions options;
    options.version = version;
    options.adapter = "identity";
    options.trainer_epoch = epoch;
    return options;
  }

  // A process: a connection, and the version that it has open.
  struct Trainer {
    std::unique_ptr<Publisher> publisher;
    absl::StatusOr<std::unique_ptr<VersionPush>> push;

    absl::Status Send(const char* tensor, uint64_t value) {
      return push.ok() ? (*push)->Push(tensor, Fill(value)) : push.status();
    }
    absl::Status Commit() { return push.ok() ? (*push)->Commit().status() : push.status(); }
    absl::Status PushAll(uint64_t value) {
      for (const char* tensor : {"a", "b"}) {
        if (absl::Status status = Send(tensor, value); !status.ok()) return status;
      }
      return Commit();
    }
  };

  Trainer Open(const PublishOptions& options) const {
    auto publisher = Publisher::Connect(Channel());
    if (!publisher.ok()) return {nullptr, publisher.status()};
    auto push = (*publisher)->Open(options, kSpecs);
    return {*std::move(publisher), std::move(push)};
  }

  // Rows 0 to half, or from there on, of both tensors.
  Trainer OpenRank(PublishOptions options, uint32_t rank) const {
    options.rank = rank;
    options.world = 2;
    std::vector<TensorPart> shards;
    shards.reserve(kSpecs.size());
    for (const TensorSpec& spec : kSpecs) shards.push_back({spec, {{rank * kElements / 2}, {kElements / 2}}});
    auto publisher = Publisher::Connect(Channel());
    if (!publisher.ok()) return {nullptr, publisher.status()};
    auto push = (*publisher)->OpenShards(options, std::move(shards));
    return {*std::move(publisher), std::move(push)};
  }

  absl::StatusOr<PulledVersion> Pull() const {
    auto subscriber = Subscriber::Connect(Channel());
    if (!subscriber.ok()) return subscriber.status();
    return (*subscriber)->Pull({});
  }

  // The newest committed version, all of one value.
  void ExpectServed(uint64_t version, uint64_t value) const {
    auto pulled = Pull();
    ASSERT_OK(pulled);
    EXPECT_EQ(pulled->result.version.version, version);
    for (const PulledTensor& tensor : pulled->tensors) {
      const Bytes expected = Fill(value);
      EXPECT_TRUE(std::equal(expected.begin(), expected.end(), tensor.data->data())) << tensor.part.ToString();
    }
  }

  std::unique_ptr<RefitServer> server_;
};

TEST_F(TwoTrainers, TheNewRunTakesOverWithANewerVersion) {
  Trainer old_run = Open(Options(5, 1));
  ASSERT_OK(old_run.Send("a", 1));
  Trainer new_run = Open(Options(6, 2));
  ASSERT_OK(new_run.push);
  absl::Status fenced = old_run.Send("b", 1);
  if (fenced.ok()) fenced = old_run.Commit();
  EXPECT_THAT(fenced, StatusIs(StatusCode::kFailedPrecondition,
                               AllOf(HasSubstr("default/5"), HasSubstr("epoch 1"), HasSubstr("epoch 2 has taken over"),
                                     HasSubstr("version 6"))));
  ASSERT_OK(new_run.PushAll(2));
  ExpectServed(6, 2);
}

TEST_F(TwoTrainers, TheNewRunTakesOverTheSameVersion) {
  Trainer old_run = Open(Options(5, 1));
  ASSERT_OK(old_run.Send("a", 1));
  Trainer new_run = Open(Options(5, 2));
  ASSERT_OK(new_run.Send("a", 2));
  EXPECT_THAT(old_run.Send("b", 1).ok() ? old_run.Commit() : absl::FailedPreconditionError(""),
              StatusIs(StatusCode::kFailedPrecondition));
  ASSERT_OK(new_run.Send("b", 2));
  ASSERT_OK(new_run.Commit());
  ExpectServed(5, 2);
}

TEST_F(TwoTrainers, AnOldRunIsRefusedEvenWithNothingOpen) {
  ASSERT_OK(Open(Options(1, 7)).PushAll(7));
  for (const uint64_t epoch : {0, 6}) {
    EXPECT_THAT(Open(Options(2, epoch)).push,
                StatusIs(StatusCode::kFailedPrecondition, HasSubstr("epoch 7 has taken over")));
  }
  ASSERT_OK(Open(Options(2, 7)).PushAll(8));
  ASSERT_OK(Open(Options(3, 8)).PushAll(9));
  ExpectServed(3, 9);
}

TEST_F(TwoTrainers, ATakeoverWhoseNumberIsRefusedFencesAllTheSame) {
  ASSERT_OK(Open(Options(4, 1)).PushAll(1));
  Trainer old_run = Open(Options(5, 1));
  ASSERT_OK(old_run.push);
  PublishOptions too_large = Options(4, 2);
  auto publisher = Publisher::Connect(Channel());
  EXPECT_THAT((*publisher)->Open(too_large, {{"huge", DType::kU8, {int64_t{1} << 50}}}),
              StatusIs(StatusCode::kResourceExhausted));
  EXPECT_THAT(old_run.PushAll(1), StatusIs(StatusCode::kFailedPrecondition, HasSubstr("epoch 2")));
  ExpectServed(4, 1);
}

TEST_F(TwoTrainers, NumbersStartAnewWithALargerEpoch) {
  ASSERT_OK(Open(Options(4, 1)).PushAll(1));
  ASSERT_OK(Open(Options(2, 2)).PushAll(2));
  ExpectServed(2, 2);  // of the newer run, whatever its number
  EXPECT_THAT(Open(Options(1, 2)).push,
              StatusIs(StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("newest committed version 2"), HasSubstr("a larger trainer_epoch"))));
  ASSERT_OK(Open(Options(4, 2)).PushAll(3));  // the same number as in the older run
  ExpectServed(4, 3);
}

// An older run's versions go first, and its newest stays as long as it is among those that are retained.
TEST_F(TwoTrainers, OfAnOlderRunTheOldestGoFirst) {
  for (const uint64_t version : {8, 9}) ASSERT_OK(Open(Options(version, 1)).PushAll(1));
  ASSERT_OK(Open(Options(1, 2)).PushAll(2));
  const auto states = [&] {
    auto inspector = Inspector::Connect(Channel());
    std::vector<std::pair<uint64_t, v1::VersionState>> all;
    const auto versions = (*inspector)->Versions("default");
    for (const v1::VersionSummary& one : versions->versions()) all.emplace_back(one.version(), one.state());
    return all;
  };
  using Of = std::pair<uint64_t, v1::VersionState>;
  EXPECT_THAT(states(), ElementsAre(Of{8, v1::VERSION_STATE_RETIRED}, Of{9, v1::VERSION_STATE_COMMITTED},
                                    Of{1, v1::VERSION_STATE_COMMITTED}));
  ASSERT_OK(Open(Options(2, 2)).PushAll(2));
  EXPECT_THAT(states(), ElementsAre(Of{8, v1::VERSION_STATE_RETIRED}, Of{9, v1::VERSION_STATE_RETIRED},
                                    Of{1, v1::VERSION_STATE_COMMITTED}, Of{2, v1::VERSION_STATE_COMMITTED}));
}

TEST_F(TwoTrainers, RunsThatAreNotToldApartWaitForEachOther) {
  Trainer first = Open(Options(5, 3));
  ASSERT_OK(first.push);
  EXPECT_THAT(Open(Options(6, 3)).push, StatusIs(StatusCode::kFailedPrecondition, HasSubstr("default/5 is open")));
  EXPECT_THAT(Open(Options(5, 3)).push, StatusIs(StatusCode::kAlreadyExists));
  ASSERT_OK(first.PushAll(1));
  ExpectServed(5, 1);
}

TEST_F(TwoTrainers, ModelsHaveEpochsOfTheirOwn) {
  PublishOptions other = Options(1, 1);
  other.model = "other";
  ASSERT_OK(Open(Options(1, 9)).PushAll(1));
  ASSERT_OK(Open(other).PushAll(1));
}

TEST_F(TwoTrainers, WorkersOfTheFencedVersionHearThatItWasAborted) {
  Trainer old_run = Open(Options(5, 1));
  ASSERT_OK(old_run.Send("a", 1));
  auto subscriber = Subscriber::Connect(Channel());
  ASSERT_OK(subscriber);
  absl::Status status;
  std::thread worker([&] {
    PullOptions options;
    options.version = 5;
    status = (*subscriber)->Pull(options).status();
  });
  auto inspector = Inspector::Connect(Channel());
  ASSERT_OK(inspector);
  while (true) {  // until it waits for the rest
    auto workers = (*inspector)->Workers();
    ASSERT_OK(workers);
    if (workers->workers_size() == 1 && workers->workers(0).sent_bytes() >= kElements) break;
  }
  Trainer new_run = Open(Options(6, 2));
  worker.join();
  EXPECT_THAT(status, StatusIs(StatusCode::kAborted, HasSubstr("epoch 2 has taken over")));
}

TEST_F(TwoTrainers, AllRanksOfTheOldRunAreFencedOff) {
  std::vector<std::thread> threads;
  std::vector<Trainer> old_run(2);
  for (uint32_t rank = 0; rank < 2; ++rank) {
    threads.emplace_back([&, rank] { old_run[rank] = OpenRank(Options(5, 1), rank); });
  }
  for (std::thread& thread : threads) thread.join();
  for (Trainer& rank : old_run) ASSERT_OK(rank.push);
  threads.clear();
  std::vector<absl::Status> committed(2);
  for (uint32_t rank = 0; rank < 2; ++rank) {
    threads.emplace_back([&, rank] {
      Trainer trainer = OpenRank(Options(5, 2), rank);
      absl::Status status = trainer.push.status();
      for (const char* tensor : {"a", "b"}) {
        if (status.ok()) status = (*trainer.push)->Push(tensor, Fill(2, kElements / 2));
      }
      committed[rank] = status.ok() ? trainer.Commit() : status;
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const absl::Status& status : committed) EXPECT_OK(status);
  for (Trainer& rank : old_run) {
    absl::Status status;
    for (const char* tensor : {"a", "b"}) {
      if (status.ok()) status = (*rank.push)->Push(tensor, Fill(1, kElements / 2));
    }
    if (status.ok()) status = rank.Commit();
    EXPECT_THAT(status, StatusIs(StatusCode::kFailedPrecondition, HasSubstr("epoch 2 has taken over")));
  }
  ExpectServed(5, 2);
}

TEST_F(TwoTrainers, ARankOfTheOldRunCannotJoinTheNewOne) {
  std::thread first([&] {
    Trainer trainer = OpenRank(Options(5, 2), 0);
    if (trainer.push.ok()) trainer.push->reset();
  });
  auto inspector = Inspector::Connect(Channel());
  ASSERT_OK(inspector);
  while (true) {
    auto versions = (*inspector)->Versions();
    ASSERT_OK(versions);
    if (versions->versions_size() == 1) break;
  }
  EXPECT_THAT(OpenRank(Options(5, 1), 1).push, StatusIs(StatusCode::kFailedPrecondition, HasSubstr("epoch 1")));
  EXPECT_OK(OpenRank(Options(5, 2), 1).push);
  first.join();
}

// Two runs push as fast as they can, each version all of its run's value. Whatever is committed is of one run alone,
// and once the new run is seen nothing of the old one is.
TEST_F(TwoTrainers, ARaceNeverMixesThem) {
  for (uint64_t round = 0; round < 10; ++round) {
    const uint64_t old_epoch = 2 * round + 1;
    const uint64_t new_epoch = old_epoch + 1;
    std::atomic<uint64_t> next{100 * round + 1};
    std::atomic<bool> old_ended{false};
    absl::Status old_status;
    std::thread old_run([&] {
      while (true) {
        old_status = Open(Options(next, old_epoch)).PushAll(old_epoch);
        if (old_status.ok()) ++next;
        if (absl::IsFailedPrecondition(old_status) && old_status.message().find("taken over") != std::string::npos)
          break;
      }
      old_ended = true;
    });
    std::thread worker([&] {
      while (!old_ended) {
        auto pulled = Pull();
        if (!pulled.ok()) continue;
        const std::byte first = pulled->tensors[0].data->data()[0];
        for (const PulledTensor& tensor : pulled->tensors) {
          const Bytes expected(kElements, first);
          EXPECT_TRUE(std::equal(expected.begin(), expected.end(), tensor.data->data()));
        }
      }
    });
    while (next < 100 * round + 3) std::this_thread::yield();  // the old run is at it
    absl::Status committed = absl::UnknownError("");
    for (int attempt = 0; attempt < 100 && !committed.ok(); ++attempt) {
      committed = Open(Options(100 * round + 90, new_epoch)).PushAll(new_epoch);
    }
    EXPECT_OK(committed);
    old_run.join();
    worker.join();
    EXPECT_THAT(old_status, StatusIs(StatusCode::kFailedPrecondition, HasSubstr("taken over")));
    ExpectServed(100 * round + 90, new_epoch);
  }
}

}  // namespace
}  // namespace refit
