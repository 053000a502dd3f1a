// Workers that hold a version get what has changed since: when, in which form, and what happens if the base is wrong.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "refit/inspector.h"
#include "refit/publisher.h"
#include "refit/server.h"
#include "refit/subscriber.h"
#include "tests/support/eventually.h"
#include "tests/support/http.h"
#include "tests/support/status_matchers.h"
#include "tests/support/stepped_model.h"
#include "tests/support/temporary_folder.h"

namespace refit {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr uint64_t kChunkBytes = 64 << 10;

using Bytes = std::vector<std::byte>;

class DeltaPull : public ::testing::Test {
 protected:
  void SetUp() override { Start({}); }

  void Start(ServerOptions options) {
    subscriber_.reset();
    server_.reset();
    options.listen = "127.0.0.1:0";
    options.store.chunk_bytes = kChunkBytes;
    auto server = RefitServer::Start(options);
    ASSERT_OK(server);
    server_ = *std::move(server);
    channel_.address = server_->address();
    channel_.transport = Transport::kWire;
    auto subscriber = Subscriber::Connect(channel_);
    ASSERT_OK(subscriber);
    subscriber_ = *std::move(subscriber);
  }

  void Push(uint64_t version) { ASSERT_OK(model_.Push(channel_, version)); }
  void PushStep(uint64_t version, size_t nth = 100) {
    model_.Step(nth);
    Push(version);
  }

  absl::StatusOr<PulledVersion> Pull(std::shared_ptr<const PullBase> base, PullOptions options = {}) {
    options.base = std::move(base);
    return subscriber_->Pull(options);
  }

  void ExpectWhole(const PulledVersion& pulled) {
    for (const PulledTensor& tensor : pulled.tensors) {
      EXPECT_TRUE(tensor.data->span() == absl::MakeConstSpan(model_.values.at(tensor.part.tensor.name)))
          << tensor.part.ToString();
    }
  }

  bool IsSpooled() {
    auto inspector = Inspector::Connect(channel_);
    if (!inspector.ok()) return false;
    const auto versions = (*inspector)->Versions();
    return versions.ok() && versions->versions_size() == 1 && versions->versions(0).spooled();
  }

  uint64_t Total() const { return model_.bytes(); }

  SteppedModel model_;  // "weight" has five chunks
  ChannelOptions channel_;
  std::unique_ptr<RefitServer> server_;
  std::unique_ptr<Subscriber> subscriber_;
};

TEST_F(DeltaPull, OnlyChangesCome) {
  Push(1);
  const auto first = Pull(nullptr);
  ASSERT_OK(first);
  EXPECT_EQ(first->result.traffic.wire_bytes, Total());
  EXPECT_FALSE(first->result.traffic.base_version.has_value());
  PushStep(2);
  const auto second = Pull(BaseOf(*first));
  ASSERT_OK(second);
  ExpectWhole(*second);
  const PullTraffic& traffic = second->result.traffic;
  EXPECT_EQ(traffic.base_version, 1u);
  EXPECT_THAT(traffic.base_refused, IsEmpty());
  EXPECT_EQ(second->result.bytes, Total());
  EXPECT_LT(traffic.wire_bytes, Total() / 40);
  EXPECT_EQ(traffic.raw_chunks, 0u);
  EXPECT_EQ(traffic.delta_chunks, 5u + 1);
  EXPECT_EQ(traffic.unchanged_chunks, 3u);
  EXPECT_EQ(traffic.changed_elements, 1639u + 7);
  EXPECT_EQ(second->result.selection_digest, second->result.version.manifest_digest);
}

TEST_F(DeltaPull, ThreeVersionsInARowAndBackAgain) {
  Push(1);
  auto pulled = Pull(nullptr);
  ASSERT_OK(pulled);
  for (uint64_t version = 2; version <= 4; ++version) {
    PushStep(version, 50);
    pulled = Pull(BaseOf(*pulled));
    ASSERT_OK(pulled);
    ExpectWhole(*pulled);
    EXPECT_EQ(pulled->result.traffic.base_version, version - 1);
  }
  PullOptions former;
  former.version = 3;
  const auto back = Pull(BaseOf(*pulled), former);
  ASSERT_OK(back);
  EXPECT_EQ(back->result.traffic.base_version, 4u);
  EXPECT_LT(back->result.traffic.wire_bytes, Total() / 20);
}

TEST_F(DeltaPull, TheSameVersionAgainCostsNothing) {
  Push(1);
  const auto first = Pull(nullptr);
  ASSERT_OK(first);
  const auto again = Pull(BaseOf(*first));
  ASSERT_OK(again);
  ExpectWhole(*again);
  EXPECT_EQ(again->result.traffic.wire_bytes, 0u);
}

TEST_F(DeltaPull, WhatHasChangedTooMuchComesWhole) {
  Push(1);
  const auto first = Pull(nullptr);
  ASSERT_OK(first);
  model_.values.at("weight") = SteppedModel::Pattern(model_.specs[0], 99);
  Push(2);
  const auto second = Pull(BaseOf(*first));
  ASSERT_OK(second);
  ExpectWhole(*second);
  EXPECT_EQ(second->result.traffic.raw_chunks, 5u);
  EXPECT_EQ(second->result.traffic.wire_bytes, model_.specs[0].ByteSize());
}

TEST_F(DeltaPull, TensorsThatTheBaseLacksComeWhole) {
  Push(1);
  const auto first = Pull(nullptr);
  ASSERT_OK(first);
  model_.specs[1].shape = {100, 400};  // as many bytes
  model_.specs.push_back({"new", DType::kF32, {10}});
  PushStep(2);
  const auto second = Pull(BaseOf(*first));
  ASSERT_OK(second);
  ExpectWhole(*second);
  EXPECT_GT(second->result.traffic.wire_bytes, model_.specs[1].ByteSize() + 40);
  EXPECT_LT(second->result.traffic.wire_bytes, model_.specs[1].ByteSize() + Total() / 40);
}

TEST_F(DeltaPull, PartsAndFiltersHaveBasesOfTheirOwn) {
  Push(1);
  PullOptions part;
  part.names = {"weight"};
  part.rules.push_back({LayoutRule::Scope::kAny, "weight", 1, 1, 2});  // strided
  const auto first = Pull(nullptr, part);
  ASSERT_OK(first);
  PushStep(2);
  const auto second = Pull(BaseOf(*first), part);
  ASSERT_OK(second);
  EXPECT_EQ(second->result.traffic.base_version, 1u);
  EXPECT_LT(second->result.traffic.wire_bytes, second->result.bytes / 40);
  const Bytes& whole = model_.values.at("weight");
  for (int row = 0; row < 256; ++row) {
    ASSERT_EQ(std::memcmp(second->tensors[0].data->data() + row * 640, &whole[row * 1280 + 640], 640), 0) << row;
  }
  // Another selection than the base's.
  const auto all = Pull(BaseOf(*first));
  ASSERT_OK(all);
  ExpectWhole(*all);
  EXPECT_THAT(all->result.traffic.base_refused, HasSubstr("other bytes"));
}

TEST_F(DeltaPull, EachReasonForWholeTensorsIsTold) {
  Push(1);
  const auto first = Pull(nullptr);
  ASSERT_OK(first);
  PushStep(2);
  const auto expect = [&](PullBase base, const std::string& reason) {
    const auto pulled = Pull(std::make_shared<PullBase>(std::move(base)));
    ASSERT_OK(pulled);
    ExpectWhole(*pulled);
    EXPECT_THAT(pulled->result.traffic.base_refused, HasSubstr(reason));
    EXPECT_EQ(pulled->result.traffic.wire_bytes, Total());
    EXPECT_FALSE(pulled->result.traffic.base_version.has_value());
  };
  PullBase base = *BaseOf(*first);
  base.version = 77;
  expect(base, "no version 77");
  base = *BaseOf(*first);
  base.trainer_epoch = 5;
  expect(base, "no version 1 of epoch 5");
  base = *BaseOf(*first);
  base.digest += 1;
  expect(base, "version 1 of this service has other bytes");
  PushStep(3);
  PushStep(4);
  expect(*BaseOf(*first), "version 1 is retired here");
  Start({.deltas = false});
  Push(1);
  expect(*BaseOf(*first), "--no-deltas");
}

// The bytes in use may have been changed, by an engine or by a fault: digests tell, and the tensor comes again.
TEST_F(DeltaPull, AChangedBaseIsNoticedAndWhatDependsOnItComesWhole) {
  Push(1);
  auto first = Pull(nullptr);
  ASSERT_OK(first);
  PushStep(2);
  first->tensors[0].data->data()[kChunkBytes + 5] ^= std::byte{1};
  const auto second = Pull(BaseOf(*first));
  ASSERT_OK(second);
  ExpectWhole(*second);
  EXPECT_EQ(second->result.bytes, Total());
  EXPECT_THAT(second->result.traffic.base_refused, HasSubstr("weight"));
  EXPECT_GE(second->result.traffic.wire_bytes, model_.specs[0].ByteSize());
}

TEST_F(DeltaPull, ABaseThatLacksATensorIsNoticed) {
  Push(1);
  const auto first = Pull(nullptr);
  ASSERT_OK(first);
  PushStep(2);
  PullBase base = *BaseOf(*first);
  base.tensors.erase(base.tensors.begin());
  const auto second = Pull(std::make_shared<PullBase>(base));
  ASSERT_OK(second);
  ExpectWhole(*second);
  EXPECT_THAT(second->result.traffic.base_refused, HasSubstr("no such tensor"));
}

TEST_F(DeltaPull, DeltasStreamWhileTheVersionIsPushed) {
  Push(1);
  const auto first = Pull(nullptr);
  ASSERT_OK(first);
  auto publisher = Publisher::Connect(channel_);
  ASSERT_OK(publisher);
  PublishOptions options;
  options.version = 2;
  options.adapter = "identity";
  auto push = (*publisher)->Open(options, model_.specs);
  ASSERT_OK(push);
  model_.Step();
  PullOptions open;
  open.version = 2;
  open.base = BaseOf(*first);
  class Sink : public TensorSink {
   public:
    explicit Sink(std::function<void(size_t)> done) : done_(std::move(done)) {}
    absl::Status Begin(const VersionSummary&, const std::vector<TensorPart>& tensors) override {
      for (const TensorPart& part : tensors) data.emplace_back(part.ByteSize());
      done_(0);
      return absl::OkStatus();
    }
    absl::StatusOr<absl::Span<std::byte>> Place(size_t index) override { return absl::MakeSpan(data[index]); }
    absl::Status Done(size_t index) override {
      done_(index + 1);
      return absl::OkStatus();
    }
    std::vector<Bytes> data;

   private:
    std::function<void(size_t)> done_;
  };
  // Each tensor is pushed when the one before it has come: so it came before the commit.
  Sink sink([&](size_t next) {
    if (next < model_.specs.size()) {
      EXPECT_OK((*push)->Push(model_.specs[next].name, model_.values.at(model_.specs[next].name)));
    } else {
      EXPECT_OK((*push)->Commit());
    }
  });
  const auto pulled = subscriber_->Pull(open, sink);
  ASSERT_OK(pulled);
  for (size_t i = 0; i < model_.specs.size(); ++i) EXPECT_EQ(sink.data[i], model_.values.at(model_.specs[i].name));
  EXPECT_EQ(pulled->traffic.base_version, 1u);
  EXPECT_LT(pulled->traffic.wire_bytes, Total() / 40);
}

// The deltas of other workers, from one version to the next, are composed.
TEST_F(DeltaPull, AWorkerThatIsSeveralVersionsBehindGetsOneDelta) {
  Push(1);
  const auto first = Pull(nullptr);
  ASSERT_OK(first);
  auto other = *first;
  for (uint64_t version = 2; version <= 5; ++version) {
    PushStep(version, 100 + version);
    const auto next = Pull(BaseOf(other));
    ASSERT_OK(next);
    other = *next;
  }
  PushStep(6, 90);  // not pulled by anybody yet
  const auto last = Pull(BaseOf(*first));
  ASSERT_OK(last);
  ExpectWhole(*last);
  EXPECT_EQ(last->result.traffic.base_version, 1u);
  EXPECT_EQ(last->result.traffic.raw_chunks, 0u);
  EXPECT_EQ(last->result.traffic.unchanged_chunks, 3u);
  EXPECT_LT(last->result.traffic.wire_bytes, Total() / 8);
  // Again, from the cache.
  const auto again = Pull(BaseOf(*first));
  ASSERT_OK(again);
  EXPECT_EQ(again->result.traffic.wire_bytes, last->result.traffic.wire_bytes);
}

TEST_F(DeltaPull, ChangesThatAreTakenBackDropOutOfAChain) {
  Push(1);
  const auto first = Pull(nullptr);
  ASSERT_OK(first);
  const auto before = model_.values;
  PushStep(2);
  const auto second = Pull(BaseOf(*first));
  ASSERT_OK(second);
  model_.values = before;
  Push(3);
  ASSERT_OK(Pull(BaseOf(*second)));
  PushStep(4, 5000);
  const auto last = Pull(BaseOf(*first));
  ASSERT_OK(last);
  ExpectWhole(*last);
  EXPECT_EQ(last->result.traffic.changed_elements, 33u + 1);
}

TEST_F(DeltaPull, AChainWithAMissingLinkGivesWholeTensors) {
  Push(1);
  const auto first = Pull(nullptr);
  ASSERT_OK(first);
  PushStep(2);
  ASSERT_OK(Pull(BaseOf(*first)));
  PushStep(3);  // nobody goes from 2 to 3
  PushStep(4);
  const auto last = Pull(BaseOf(*first));
  ASSERT_OK(last);
  ExpectWhole(*last);
  EXPECT_EQ(last->result.traffic.wire_bytes, Total());
  EXPECT_THAT(last->result.traffic.base_refused, HasSubstr("no deltas of it are left"));
}

TEST_F(DeltaPull, ChainsOfPartsAndWithLostPayloads) {
  ServerOptions options;
  options.limits.delta_bytes = 4000;  // the payloads of a version hardly fit
  Start(options);
  PullOptions part;
  part.names = {"weight"};
  part.rules.push_back({LayoutRule::Scope::kAny, "weight", 1, 1, 2});
  Push(1);
  const auto first = Pull(nullptr, part);
  ASSERT_OK(first);
  auto other = *first;
  for (uint64_t version = 2; version <= 4; ++version) {
    PushStep(version, 60);
    const auto next = Pull(BaseOf(other), part);
    ASSERT_OK(next);
    other = *next;
  }
  const auto last = Pull(BaseOf(*first), part);
  ASSERT_OK(last);
  const Bytes& whole = model_.values.at("weight");
  for (int row = 0; row < 256; ++row) {
    ASSERT_EQ(std::memcmp(last->tensors[0].data->data() + row * 640, &whole[row * 1280 + 640], 640), 0) << row;
  }
}

TEST_F(DeltaPull, ARunThatStartsOverHasBasesInTheOneBefore) {
  Push(1);
  PushStep(2);
  const auto second = Pull(nullptr);
  ASSERT_OK(second);
  model_.Step();
  PublishOptions options;
  options.version = 1;
  options.trainer_epoch = 1;
  options.adapter = "identity";
  auto publisher = Publisher::Connect(channel_);
  ASSERT_OK(publisher);
  auto push = (*publisher)->Open(options, model_.specs);
  ASSERT_OK(push);
  for (const TensorSpec& spec : model_.specs) ASSERT_OK((*push)->Push(spec.name, model_.values.at(spec.name)));
  ASSERT_OK((*push)->Commit());
  const auto again = Pull(BaseOf(*second));
  ASSERT_OK(again);
  ExpectWhole(*again);
  EXPECT_EQ(again->result.version.trainer_epoch, 1u);
  EXPECT_EQ(again->result.traffic.base_version, 2u);
  EXPECT_LT(again->result.traffic.wire_bytes, Total() / 40);
}

TEST_F(DeltaPull, EachChunkIsEncodedOnceForAllWorkers) {
  ServerOptions options;
  options.metrics = "127.0.0.1:0";
  Start(options);
  Push(1);
  const auto first = Pull(nullptr);
  ASSERT_OK(first);
  PushStep(2);
  constexpr int kWorkers = 6;
  std::vector<absl::StatusOr<PulledVersion>> pulled(kWorkers);
  std::vector<std::thread> workers;
  workers.reserve(kWorkers);
  for (auto& mine : pulled) workers.emplace_back([&] { mine = Pull(BaseOf(*first)); });
  for (std::thread& worker : workers) worker.join();
  for (const auto& mine : pulled) {
    ASSERT_OK(mine);
    ExpectWhole(*mine);
  }
  const uint64_t wire = pulled[0]->result.traffic.wire_bytes;
  const std::string metrics = HttpGet(server_->metrics_address(), "/metrics");
  EXPECT_THAT(metrics, HasSubstr(absl::StrCat("\nrefit_delta_encoded_bytes_total ", wire, "\n")));
  EXPECT_THAT(metrics, HasSubstr(absl::StrCat("\nrefit_delta_shared_bytes_total ", (kWorkers - 1) * wire, "\n")));
}

TEST_F(DeltaPull, AVersionOnDiskIsABaseAfterARestart) {
  const TemporaryFolder folder;
  ServerOptions options;
  options.spool = folder.Path("spool");
  Start(options);
  Push(1);
  const auto first = Pull(nullptr);
  ASSERT_OK(first);
  ASSERT_TRUE(Eventually([&] { return IsSpooled(); }));
  Start(options);
  PushStep(2);
  const auto second = Pull(BaseOf(*first));
  ASSERT_OK(second);
  ExpectWhole(*second);
  EXPECT_EQ(second->result.traffic.base_version, 1u);
  EXPECT_LT(second->result.traffic.wire_bytes, Total() / 40);
}

TEST_F(DeltaPull, ABaseWhoseFileIsCutShortIsNoBase) {
  Push(1);
  const auto first = Pull(nullptr);
  ASSERT_OK(first);
  PushStep(2);
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::tmpfile(), std::fclose);
  ASSERT_NE(file, nullptr);
  const absl::Span<const std::byte> weight = first->tensors[0].data->span();
  ASSERT_EQ(std::fwrite(weight.data(), 1, weight.size(), file.get()), weight.size());
  ASSERT_EQ(std::fflush(file.get()), 0);
  void* mapped = mmap(nullptr, weight.size(), PROT_READ, MAP_SHARED, fileno(file.get()), 0);
  ASSERT_NE(mapped, MAP_FAILED);
  auto base = std::make_shared<PullBase>(*BaseOf(*first));
  base->tensors[0].bytes = {static_cast<const std::byte*>(mapped), weight.size()};
  ASSERT_EQ(ftruncate(fileno(file.get()), 4096), 0);
  const auto second = Pull(base);
  munmap(mapped, weight.size());
  ASSERT_OK(second);
  ExpectWhole(*second);
  EXPECT_THAT(second->result.traffic.base_refused, HasSubstr("was it truncated"));
}

TEST_F(DeltaPull, StatusShowsWhatIsMoved) {
  Push(1);
  PullOptions named;
  named.worker = "w";
  const auto first = Pull(nullptr, named);
  ASSERT_OK(first);
  PushStep(2);
  const auto second = Pull(BaseOf(*first), named);
  ASSERT_OK(second);
  auto inspector = Inspector::Connect(channel_);
  ASSERT_OK(inspector);
  const auto workers = (*inspector)->Workers("default");
  ASSERT_OK(workers);
  ASSERT_EQ(workers->workers_size(), 1);
  const v1::Worker& worker = workers->workers(0);
  EXPECT_EQ(worker.sent_bytes(), Total());
  EXPECT_EQ(worker.wire_bytes(), second->result.traffic.wire_bytes);
  EXPECT_EQ(worker.base_version(), 1u);
  EXPECT_EQ(worker.raw_chunks(), 0u);
  EXPECT_EQ(worker.delta_chunks(), 6u);
  EXPECT_EQ(worker.unchanged_chunks(), 3u);
  EXPECT_EQ(worker.changed_elements(), second->result.traffic.changed_elements);
  EXPECT_EQ(worker.total_sent_bytes(), Total() + worker.wire_bytes());
}

}  // namespace
}  // namespace refit
