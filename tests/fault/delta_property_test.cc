// Random models change at random, and workers that hold a random earlier version pull them as deltas, over connections
// that are cut anywhere: what they get is the new version, bit for bit.
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "refit/subscriber.h"
#include "tests/fault/fault_proxy.h"
#include "tests/support/fleet.h"
#include "tests/support/gather.h"
#include "tests/support/many_cases.h"
#include "tests/support/push.h"
#include "tests/support/random_model.h"

namespace refit {
namespace {

constexpr int kCases = 500;
constexpr uint64_t kChunkBytes = 4096;

using Bytes = std::vector<std::byte>;

class Case {
 public:
  explicit Case(uint64_t seed) : random_(seed) {
    ServerOptions options;
    options.store.chunk_bytes = kChunkBytes;
    options.store.retain_versions = static_cast<uint32_t>(random_.Between(1, 3));
    if (random_.OneIn(4)) options.limits.delta_bytes = 2000;  // payloads are dropped again
    server_ = StartService(options);
    proxy_ = std::make_unique<FaultProxy>(server_->port());
    specs_ = RandomSpecs(random_);
    for (const TensorSpec& spec : specs_) {
      Bytes& bytes = values_[spec.name];
      bytes.resize(spec.ByteSize());
      for (std::byte& byte : bytes) byte = static_cast<std::byte>(random_.Bits());
    }
  }

  void Run() {
    auto subscriber = Subscriber::Connect(WireTo(proxy_->address()));
    ASSERT_OK(subscriber);
    PullOptions options = RandomOptions();
    std::vector<std::shared_ptr<const PullBase>> bases = {nullptr};
    const auto last = static_cast<uint64_t>(random_.Between(2, 5));
    for (uint64_t version = 1; version <= last; ++version) {
      if (version > 1) NextValues();
      ASSERT_OK(PushIdentity(WireTo(server_->address()), version, specs_,
                             [&](size_t i) { return values_.at(specs_[i].name); }));
      if (random_.OneIn(3) && version < last) continue;  // the worker skips it
      options.base = random_.Of(bases);
      if (options.base != nullptr && random_.OneIn(6)) options.base = Spoilt(*options.base);
      if (random_.OneIn(3)) {
        proxy_->Inject({.kind = random_.OneIn(2) ? Fault::Kind::kCut : Fault::Kind::kTruncate,
                        .after_bytes = static_cast<uint64_t>(random_.Between(1, 30'000))});
      }
      const auto pulled = (*subscriber)->Pull(options);
      proxy_->Heal();
      ASSERT_OK(pulled);
      Check(*pulled);
      if (pulled->result.traffic.base_version.has_value()) ++deltas;
      bases.push_back(BaseOf(*pulled));
    }
  }

  int deltas = 0;

 private:
  PullOptions RandomOptions() {
    PullOptions options;
    if (random_.OneIn(3)) options.filter = absl::StrCat("^t[1-", random_.Between(1, 6), "]$");
    for (const TensorSpec& spec : specs_) {
      if (!random_.OneIn(3)) continue;
      Box box;
      for (const int64_t size : spec.shape) {
        box.offsets.push_back(random_.Between(0, size));
        box.sizes.push_back(random_.Between(0, size - box.offsets.back()));
      }
      options.boxes.emplace_back(spec.name, std::move(box));
      boxed_.insert(spec.name);
    }
    return options;
  }

  void NextValues() {
    for (TensorSpec& spec : specs_) {
      if (random_.OneIn(12) && boxed_.count(spec.name) == 0) {
        spec.shape = RandomShape(random_);
        values_[spec.name] = Bytes(spec.ByteSize(), std::byte{3});
      }
      ChangeAtRandom(random_, spec, values_.at(spec.name));
    }
  }

  // Other bytes than those that its digest is of.
  std::shared_ptr<const PullBase> Spoilt(const PullBase& base) {
    auto spoilt = std::make_shared<PullBase>(base);
    for (PullBase::Tensor& tensor : spoilt->tensors) {
      if (tensor.bytes.empty() || random_.OneIn(2)) continue;
      auto bytes = std::make_shared<Bytes>(tensor.bytes.begin(), tensor.bytes.end());
      (*bytes)[random_.Between(0, static_cast<int64_t>(bytes->size()) - 1)] ^= std::byte{0x10};
      tensor.bytes = absl::MakeConstSpan(*bytes);
      tensor.owner = bytes;
    }
    return spoilt;
  }

  void Check(const PulledVersion& pulled) {
    for (const PulledTensor& tensor : pulled.tensors) {
      const Bytes expected = Gather(tensor.part, values_.at(tensor.part.tensor.name));
      ASSERT_TRUE(tensor.data->span() == absl::MakeConstSpan(expected)) << tensor.part.ToString();
    }
  }

  Random random_;
  std::unique_ptr<RefitServer> server_;
  std::unique_ptr<FaultProxy> proxy_;
  std::vector<TensorSpec> specs_;
  std::map<std::string, Bytes> values_;
  std::set<std::string> boxed_;  // their shapes stay, since the box must fit
};

TEST(DeltaProperty, AWorkerWithAnyBaseGetsTheVersion) {
  std::atomic<int> deltas = 0;
  RunCases(kCases, [&](int i) {
    Case one(static_cast<uint64_t>(i));
    one.Run();
    deltas += one.deltas;
  });
  EXPECT_GT(deltas, kCases / 3);
}

}  // namespace
}  // namespace refit
