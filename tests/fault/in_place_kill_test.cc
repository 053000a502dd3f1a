// A worker that changes its memory in place is killed with SIGKILL. Its memory outlives it, so that it can be looked
// at: only a death between the first and the last write leaves parts of two versions, and the next life mends them.
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/fault/fault_proxy.h"
#include "tests/integration/subprocess.h"
#include "tests/support/fleet.h"
#include "tests/support/push.h"

namespace refit {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint64_t kTensors = 4;
constexpr int64_t kElements = 100'000;  // of BF16
constexpr uint64_t kBytes = 2 * kElements;

class InPlaceKill : public ::testing::Test {
 protected:
  void SetUp() override {
    server_ = StartService();
    ASSERT_NE(server_, nullptr);
    proxy_ = std::make_unique<FaultProxy>(server_->port());
    for (uint64_t i = 0; i < kTensors; ++i) specs_.push_back({absl::StrCat("t", i), DType::kBF16, {kElements}});
  }

  // Every hundredth element is another with each version.
  std::string Bytes(uint64_t version, size_t tensor) const {
    std::string bytes(kBytes, '\0');
    for (size_t i = 0; i < bytes.size(); i += 2) {
      bytes[i] = static_cast<char>(i / 200 + 31 * tensor + (i % 200 == 0 ? version : 0));
      bytes[i + 1] = static_cast<char>(i >> 9);
    }
    return bytes;
  }
  std::string Whole(uint64_t version) const {
    std::string all;
    for (size_t i = 0; i < kTensors; ++i) all += Bytes(version, i);
    return all;
  }

  void Push(uint64_t version) {
    ASSERT_OK(PushIdentity(WireTo(server_->address()), version, specs_, [&](size_t i) {
      const std::string bytes = Bytes(version, i);
      const auto* first = reinterpret_cast<const std::byte*>(bytes.data());
      return std::vector<std::byte>(first, first + bytes.size());
    }));
  }

  void Start(std::vector<std::string> more = {}) {
    std::vector<std::string> arguments = {proxy_->address(), memory_, log_};
    for (size_t i = 0; i < kTensors; ++i) arguments.push_back(absl::StrCat(kBytes));
    arguments.insert(arguments.end(), more.begin(), more.end());
    peer_ = Subprocess::Start("in-place-peer", arguments);
  }
  void Kill() {
    peer_->Signal(SIGKILL);
    EXPECT_EQ(peer_->Wait().code, 128 + SIGKILL);
  }

  bool Logged(const std::string& line) const {
    std::ifstream file(log_);
    std::string one;
    while (std::getline(file, one)) {
      if (one == line) return true;
    }
    return false;
  }
  void Await(const std::string& line) {
    const Clock::time_point end = Clock::now() + std::chrono::seconds(60);
    while (!Logged(line)) {
      ASSERT_LT(Clock::now(), end) << "no \"" << line << "\"; stderr: " << peer_->Err();
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }
  std::string InMemory() const { return ReadFile(memory_); }

  TemporaryFolder folder_;
  const std::string memory_ = folder_.Path("memory");
  const std::string log_ = folder_.Path("log");
  std::vector<TensorSpec> specs_;
  std::unique_ptr<RefitServer> server_;
  std::unique_ptr<FaultProxy> proxy_;
  std::unique_ptr<Subprocess> peer_;
};

TEST_F(InPlaceKill, BetweenFirstAndLastWriteTheVersionIsLostAndTheNextLifeMendsIt) {
  Push(1);
  Start({"die-at", absl::StrCat(2 * kBytes + kBytes / 2)});
  Await("install 1");
  EXPECT_TRUE(InMemory() == Whole(1));
  Push(2);
  EXPECT_EQ(peer_->Wait().code, 128 + SIGKILL);
  EXPECT_FALSE(Logged("install 2"));
  // Threads write the tensors at the same time, so the others may be of either version.
  const std::string torn = InMemory();
  EXPECT_FALSE(torn == Whole(1));
  EXPECT_FALSE(torn == Whole(2));
  EXPECT_FALSE(torn.substr(2 * kBytes, kBytes) == Bytes(2, 2));
  Start();
  Await("install 2");  // a new life has no base, and begins with a whole version
  EXPECT_TRUE(InMemory() == Whole(2));
  Push(3);
  Await("install 3");
  EXPECT_TRUE(InMemory() == Whole(3));
}

TEST_F(InPlaceKill, WhileTheChangesComeTheVersionInUseStaysWhole) {
  Push(1);
  Start();
  Await("install 1");
  const uint64_t before = proxy_->bytes_to_client();
  proxy_->Inject({.kind = Fault::Kind::kStall, .after_bytes = 4000});
  Push(2);
  const Clock::time_point end = Clock::now() + std::chrono::seconds(60);
  while (proxy_->struck() == 0 && Clock::now() < end) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  EXPECT_GT(proxy_->bytes_to_client(), before);
  EXPECT_TRUE(InMemory() == Whole(1));
  Kill();
  EXPECT_TRUE(InMemory() == Whole(1));
}

// Whenever it dies. The log tells which version was in use last.
TEST_F(InPlaceKill, AtAnyMomentTheNextLifeHasAWholeVersion) {
  std::mt19937_64 random(1);
  for (uint64_t version = 1; version <= 20; version += 2) {
    Push(version);
    Start();
    Await(absl::StrCat("install ", version));
    EXPECT_TRUE(InMemory() == Whole(version)) << version;
    Push(version + 1);
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 20'000));
    Kill();
    if (Logged(absl::StrCat("install ", version + 1))) {
      EXPECT_TRUE(InMemory() == Whole(version + 1)) << version;
    }
  }
}

}  // namespace
}  // namespace refit
