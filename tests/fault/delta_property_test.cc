// Random models change at random, and workers that hold a random earlier version pull them as deltas, over connections
// that are cut anywhere: what they get is the new version, bit for bit.
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "refit/subscriber.h"
#include "tests/fault/fault_proxy.h"
#include "tests/support/fleet.h"
#include "tests/support/gather.h"
#include "tests/support/push.h"

namespace refit {
namespace {

constexpr int kCases = 500;
constexpr uint64_t kChunkBytes = 4096;

using Bytes = std::vector<std::byte>;

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  int64_t Between(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(engine_); }
  bool OneIn(int64_t n) { return Between(1, n) == 1; }
  template <typename T>
  const T& Of(const std::vector<T>& choices) {
    return choices[Between(0, static_cast<int64_t>(choices.size()) - 1)];
  }
  uint64_t Bits() { return engine_(); }

 private:
  std::mt19937_64 engine_;
};

const std::vector<DType>& DTypes() {
  static const std::vector<DType> dtypes = {DType::kBF16, DType::kF16, DType::kF32,    DType::kF64,
                                            DType::kI64,  DType::kU8,  DType::kF8E4M3, DType::kBool};
  return dtypes;
}

Shape RandomShape(Random& random) {
  switch (random.Between(0, 9)) {
    case 0:
      return {};
    case 1:
      return {random.Between(0, 3), 0, 5};
    case 2:
      return {random.Between(1, 20)};
    default:
      return {random.Between(1, 90), random.Between(1, 90)};
  }
}

std::vector<TensorSpec> RandomSpecs(Random& random) {
  std::vector<TensorSpec> specs = {{"some", DType::kF32, {3}}};  // an empty version would be refused
  for (int64_t i = random.Between(1, 6); i > 0; --i) {
    specs.push_back({absl::StrCat("t", i), random.Of(DTypes()), RandomShape(random)});
  }
  return specs;
}

// The bits of a NaN, a zero of either sign, an infinity, or of anything, as wide as an element.
uint64_t OddBits(Random& random, size_t size) {
  const uint64_t sign = uint64_t{1} << (8 * size - 1);
  switch (random.Between(0, 3)) {
    case 0:
      return sign;
    case 1:
      return 0;
    case 2:
      return ~uint64_t{0} >> random.Between(0, 3);
    default:
      return random.Bits();
  }
}

void Change(Random& random, const TensorSpec& spec, Bytes& bytes) {
  const size_t size = ElementSize(spec.dtype);
  const auto elements = static_cast<int64_t>(bytes.size() / size);
  if (elements == 0) return;
  const std::vector<int64_t> densities = {0, 1, elements / 200, elements / 20, elements / 3, elements};
  const bool small_steps = !random.OneIn(3);
  for (int64_t changes = random.Of(densities); changes > 0; --changes) {
    std::byte* element = &bytes[random.Between(0, elements - 1) * size];
    uint64_t bits = 0;
    std::memcpy(&bits, element, size);
    bits = small_steps ? bits + static_cast<uint64_t>(random.Between(-2, 2)) : OddBits(random, size);
    std::memcpy(element, &bits, size);
  }
}

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
      Change(random_, spec, values_.at(spec.name));
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
  constexpr int kThreads = 4;  // they mostly wait to go on after a cut
  std::atomic<int> deltas = 0;
  std::vector<std::thread> threads;
  for (int first = 0; first < kThreads; ++first) {
    threads.emplace_back([&, first] {
      for (int i = first; i < kCases && !::testing::Test::HasFailure(); i += kThreads) {
        SCOPED_TRACE(absl::StrCat("case ", i));
        Case one(static_cast<uint64_t>(i));
        one.Run();
        deltas += one.deltas;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(deltas, kCases / 3);
}

}  // namespace
}  // namespace refit
