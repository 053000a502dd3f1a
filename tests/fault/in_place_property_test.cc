// Random models change at random, and a worker changes its memory in place, over connections that are cut or garbled
// anywhere: what it has in use is always a whole version, bit for bit, and going back brings the one before.
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "refit/worker.h"
#include "tests/fault/fault_proxy.h"
#include "tests/support/eventually.h"
#include "tests/support/fleet.h"
#include "tests/support/many_cases.h"
#include "tests/support/push.h"
#include "tests/support/random_model.h"

namespace refit {
namespace {

constexpr int kCases = 150;

using Values = std::map<std::string, std::vector<std::byte>>;

class Case {
 public:
  explicit Case(uint64_t seed) : random_(seed) {
    ServerOptions options;
    options.store.chunk_bytes = 4096;
    options.store.retain_versions = static_cast<uint32_t>(random_.Between(1, 3));
    server_ = StartService(options);
    proxy_ = std::make_unique<FaultProxy>(server_->port());
    specs_ = RandomSpecs(random_);
    for (const TensorSpec& spec : specs_) {
      std::vector<std::byte>& bytes = values_[spec.name];
      bytes.resize(spec.ByteSize());
      for (std::byte& byte : bytes) byte = static_cast<std::byte>(random_.Bits());
    }
  }

  void Run() {
    auto worker = Worker::Create(WireTo(proxy_->address()), Options());
    ASSERT_OK(worker);
    for (uint64_t version = 1; version <= 6; ++version) {
      if (version > 1) NextValues();
      ASSERT_OK(PushIdentity(WireTo(server_->address()), version, specs_,
                             [&](size_t i) { return values_.at(specs_[i].name); }));
      history_[version] = values_;
      const std::optional<uint64_t> before = (*worker)->installed();
      Disturb();
      RefitAtLast(**worker, before);
      if (::testing::Test::HasFatalFailure()) return;
      ASSERT_TRUE(memory_ == values_) << "version " << version;
      if (apart_) GoBackAndForth(**worker, before);
    }
  }

  int changed_in_place = 0;
  int untouched = 0;

 private:
  WorkerOptions Options() {
    WorkerOptions options;
    options.in_place = true;
    options.pull.resume_within = std::chrono::milliseconds(random_.OneIn(2) ? 0 : 5000);
    options.pull.idle_timeout = std::chrono::milliseconds(1000);
    options.place = [this](const TensorPart& part) -> absl::StatusOr<absl::Span<std::byte>> {
      std::vector<std::byte>& bytes = memory_[part.tensor.name];
      bytes.resize(part.ByteSize());
      return absl::MakeSpan(bytes);
    };
    options.install = [this](StagedVersion& staged) {
      apart_ = staged.traffic.base_version.has_value();
      return absl::OkStatus();
    };
    return options;
  }

  void RefitAtLast(Worker& worker, std::optional<uint64_t> before) {
    absl::Status status;
    const bool refitted = Eventually([&] {
      status = worker.Refit().status();
      proxy_->Heal();
      // A flipped bit can put a connection's frames out of step. Then each pull waits in vain, and what it makes the
      // service send puts off the ping that would tell.
      if (absl::IsDeadlineExceeded(status)) proxy_->Inject({.kind = Fault::Kind::kCut});
      if (!status.ok()) ExpectUntouched(worker, before, status);
      return status.ok() || ::testing::Test::HasFatalFailure();
    });
    ASSERT_TRUE(refitted) << status;
  }

  void ExpectUntouched(const Worker& worker, std::optional<uint64_t> before, const absl::Status& status) {
    if (worker.torn() || !before.has_value()) return;
    ASSERT_EQ(worker.installed(), before);
    ASSERT_TRUE(memory_ == history_.at(*before)) << status;
    ++untouched;
  }

  void Disturb() {
    if (!random_.OneIn(2)) return;
    const std::vector<Fault::Kind> kinds = {Fault::Kind::kCut, Fault::Kind::kTruncate, Fault::Kind::kFlip};
    proxy_->Inject({.kind = random_.Of(kinds), .after_bytes = static_cast<uint64_t>(random_.Between(1, 20'000))});
  }

  void NextValues() {
    for (TensorSpec& spec : specs_) {
      if (random_.OneIn(2)) ChangeAtRandom(random_, spec, values_.at(spec.name));
    }
  }

  // The service need not be there.
  void GoBackAndForth(Worker& worker, std::optional<uint64_t> before) {
    ++changed_in_place;
    if (!before.has_value() || !random_.OneIn(2)) return;
    const uint64_t now = *worker.installed();
    ASSERT_OK(worker.RollBack());
    ASSERT_EQ(worker.installed(), before);
    ASSERT_TRUE(memory_ == history_.at(*before));
    ASSERT_OK(worker.RollBack());
    ASSERT_EQ(worker.installed(), now);
    ASSERT_TRUE(memory_ == values_);
  }

  Random random_;
  std::unique_ptr<RefitServer> server_;
  std::unique_ptr<FaultProxy> proxy_;
  std::vector<TensorSpec> specs_;
  Values values_;
  std::map<uint64_t, Values> history_;
  Values memory_;
  bool apart_ = false;
};

TEST(InPlaceProperty, AWholeVersionIsInUseAndGoingBackIsExact) {
  std::atomic<int> changed_in_place = 0;
  std::atomic<int> untouched = 0;
  RunCases(kCases, [&](int i) {
    Case one(static_cast<uint64_t>(i));
    one.Run();
    changed_in_place += one.changed_in_place;
    untouched += one.untouched;
  });
  EXPECT_GT(changed_in_place, kCases / 2);
  EXPECT_GT(untouched, 5);
}

}  // namespace
}  // namespace refit
