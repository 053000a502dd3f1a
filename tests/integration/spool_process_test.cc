// The service is killed, its disk is full, its memory is small: what was committed and spooled is served again.
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "refit/inspector.h"
#include "refit/publisher.h"
#include "refit/subscriber.h"
#include "tests/integration/service_process.h"
#include "tests/support/eventually.h"
#include "tests/support/gather.h"
#include "tests/support/push.h"
#include "tests/support/sanitized.h"
#include "tests/support/status_matchers.h"

namespace refit {
namespace {

using absl::StatusCode;
using ::testing::AllOf;
using ::testing::HasSubstr;
using Bytes = std::vector<std::byte>;

const TensorSpec kLarge{"large", DType::kU8, {5'000'001}};  // some chunks, and what follows lies askew
const TensorSpec kMiddle{"middle", DType::kBF16, {300, 400}};
const TensorSpec kEmpty{"none", DType::kF32, {0, 3}};
const TensorSpec kSmall{"small", DType::kF32, {3}};
const std::vector<TensorSpec> kSpecs = {kLarge, kMiddle, kEmpty, kSmall};

Bytes Values(const TensorSpec& spec, uint64_t version) {
  Bytes bytes(spec.ByteSize());
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<std::byte>((i * 2654435761U >> 9) + version * 7 + spec.name.size());
  }
  return bytes;
}

absl::StatusOr<VersionSummary> Push(const ServiceProcess& service, uint64_t version) {
  return PushIdentity(service.Channel(), version, kSpecs, [&](size_t i) { return Values(kSpecs[i], version); });
}

v1::GetServerInfoResponse Info(const ServiceProcess& service) {
  auto inspector = Inspector::Connect(service.Channel());
  EXPECT_OK(inspector);
  if (!inspector.ok()) return {};
  auto info = (*inspector)->ServerInfo();
  EXPECT_OK(info);
  return info.ok() ? *info : v1::GetServerInfoResponse();
}

std::vector<v1::VersionSummary> Committed(const ServiceProcess& service) {
  std::vector<v1::VersionSummary> committed;
  auto inspector = Inspector::Connect(service.Channel());
  EXPECT_OK(inspector);
  if (!inspector.ok()) return committed;
  auto versions = (*inspector)->Versions();
  EXPECT_OK(versions);
  for (const v1::VersionSummary& version : versions->versions()) {
    if (version.state() == v1::VERSION_STATE_COMMITTED) committed.push_back(version);
  }
  return committed;
}

bool IsSpooled(const ServiceProcess& service, uint64_t version) {
  for (const v1::VersionSummary& known : Committed(service)) {
    if (known.version() == version) return known.spooled();
  }
  return false;
}

absl::StatusOr<PulledVersion> Pull(const ServiceProcess& service, Transport transport,
                                   const PullOptions& options = {}) {
  auto subscriber = Subscriber::Connect(service.Channel(transport));
  if (!subscriber.ok()) return subscriber.status();
  return (*subscriber)->Pull(options);
}

void ExpectIs(const PulledVersion& pulled, uint64_t version) {
  for (const PulledTensor& tensor : pulled.tensors) {
    const Bytes expected = Gather(tensor.part, Values(tensor.part.tensor, version));
    ASSERT_EQ(tensor.data->size(), expected.size());
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), tensor.data->data())) << tensor.part.ToString();
  }
}

class SpoolProcess : public ::testing::Test {
 protected:
  std::vector<std::string> Flags(std::vector<std::string> more = {}) const {
    more.insert(more.end(), {"--spool", folder_.Path("spool")});
    return more;
  }
  TemporaryFolder folder_;
};

TEST_F(SpoolProcess, AfterAKillTheSameVersionsAreServed) {
  std::vector<v1::VersionSummary> before;
  {
    ServiceProcess service(Flags());
    ASSERT_NE(service.address(), "") << service.Err();
    for (uint64_t version = 1; version <= 3; ++version) {
      ASSERT_OK(Push(service, version));
      ASSERT_TRUE(Eventually([&] { return IsSpooled(service, version); })) << service.Err();
    }
    before = Committed(service);
    service.Kill();
  }
  ServiceProcess service(Flags());
  ASSERT_NE(service.address(), "") << service.Err();
  const std::vector<v1::VersionSummary> after = Committed(service);
  ASSERT_EQ(after.size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(after[i].version(), before[i].version());
    EXPECT_EQ(after[i].manifest_digest(), before[i].manifest_digest());
    EXPECT_TRUE(after[i].spooled());
  }
  EXPECT_EQ(Info(service).memory_reserved_bytes(), 0u);
  for (const uint64_t version : {2, 3}) {
    for (const Transport transport : {Transport::kWire, Transport::kSharedMemory, Transport::kAuto}) {
      PullOptions options;
      options.version = version;
      auto pulled = Pull(service, transport, options);
      ASSERT_OK(pulled);
      EXPECT_EQ(pulled->tensors.size(), kSpecs.size());
      ExpectIs(*pulled, version);
      // Parts: borrowed in one piece, and packed.
      options.boxes = {{"large", {{1'234'567}, {3'000'000}}}, {"middle", {{17, 33}, {211, 123}}}};
      auto parts = Pull(service, transport, options);
      ASSERT_OK(parts);
      ExpectIs(*parts, version);
    }
  }
  // Inspection reads tensors where they lie, which is at any address.
  auto inspector = Inspector::Connect(service.Channel());
  ASSERT_OK(inspector);
  v1::DescribeTensorRequest look;
  look.set_model("default");
  look.set_name("middle");
  auto seen = (*inspector)->DescribeTensor(look);
  ASSERT_OK(seen);
  EXPECT_EQ(seen->statistics().elements(), 300u * 400u);
  EXPECT_EQ(seen->preview_size(), 8);
  EXPECT_THAT(Push(service, 3), StatusIs(StatusCode::kAlreadyExists));
  EXPECT_THAT(Push(service, 1), StatusIs(StatusCode::kFailedPrecondition, HasSubstr("lies below")));
  ASSERT_OK(Push(service, 4));
  auto pulled = Pull(service, Transport::kAuto);
  ASSERT_OK(pulled);
  ExpectIs(*pulled, 4);
  EXPECT_EQ(service.Terminate().code, 0);
}

TEST_F(SpoolProcess, AnEndInPeaceWaitsForTheDisk) {
  {
    ServiceProcess service(Flags());
    ASSERT_OK(Push(service, 1));
    EXPECT_EQ(service.Terminate().code, 0);
  }
  ServiceProcess service(Flags());
  auto pulled = Pull(service, Transport::kAuto);
  ASSERT_OK(pulled);
  ExpectIs(*pulled, 1);
}

// Whenever it is killed: what was told to be on disk is there, what is served is whole, and nothing is left over.
TEST_F(SpoolProcess, KilledAtRandomMoments) {
  std::mt19937 random(20240501);
  uint64_t spooled = 0;
  uint64_t next = 1;
  int lost = 0;
  constexpr int kRounds = 12;
  constexpr uint32_t kLongestLifeMs = kSanitized ? 3000 : 300;  // some versions
  for (int round = 0; round < kRounds; ++round) {
    ServiceProcess service(Flags({"--retain", "2"}));
    ASSERT_NE(service.address(), "") << service.Err();
    const std::vector<v1::VersionSummary> served = Committed(service);
    const uint64_t newest = served.empty() ? 0 : served.back().version();
    EXPECT_GE(newest, spooled);
    if (newest + 1 < next) ++lost;
    if (newest > 0) {
      auto pulled = Pull(service, Transport::kAuto);
      ASSERT_OK(pulled);
      EXPECT_EQ(pulled->result.version.version, newest);
      ExpectIs(*pulled, newest);
    }
    for (const auto& entry : std::filesystem::directory_iterator(folder_.Path("spool"))) {
      EXPECT_NE(entry.path().extension(), ".tmp") << entry.path();
    }
    next = std::max(next, newest + 1);
    std::thread trainer([&] {
      while (Push(service, next).ok()) ++next;
    });
    const auto moment = std::chrono::steady_clock::now() + std::chrono::milliseconds(random() % kLongestLifeMs);
    while (std::chrono::steady_clock::now() < moment) {
      const auto known = Committed(service);
      for (const v1::VersionSummary& version : known)
        spooled = std::max(spooled, version.spooled() ? version.version() : 0);
    }
    service.Kill();
    trainer.join();
  }
  std::printf(
      "killed %d times: versions up to %d pushed, up to %d seen on disk; %d times the newest was not there yet\n",
      kRounds, static_cast<int>(next), static_cast<int>(spooled), lost);
  EXPECT_GT(spooled, 0u);
}

TEST_F(SpoolProcess, AVersionLargerThanTheMemoryIsServedFromDisk) {
  {
    ServiceProcess service(Flags());
    ASSERT_OK(Push(service, 1));
    ASSERT_TRUE(Eventually([&] { return IsSpooled(service, 1); }));
    service.Kill();
  }
  ServiceProcess service(Flags({"--memory", "1MiB"}));
  auto pulled = Pull(service, Transport::kAuto);
  ASSERT_OK(pulled);
  ExpectIs(*pulled, 1);
  EXPECT_THAT(Push(service, 2), StatusIs(StatusCode::kResourceExhausted, HasSubstr("--memory")));
  pulled = Pull(service, Transport::kAuto);
  ASSERT_OK(pulled);
  ExpectIs(*pulled, 1);
}

// A file system of its own that has room for one version; null, with the reason printed, without the right to mount.
class SmallDisk {
 public:
  explicit SmallDisk(const std::string& path) : path_(path) {
    std::filesystem::create_directory(path_);
    mounted_ = mount("tmpfs", path_.c_str(), "tmpfs", 0, "size=8m,mode=0700") == 0;
  }
  ~SmallDisk() {
    if (mounted_) umount2(path_.c_str(), MNT_DETACH);
  }
  bool mounted() const { return mounted_; }

 private:
  const std::string path_;
  bool mounted_ = false;
};

TEST_F(SpoolProcess, AFullDiskIsSaidAndTheServiceGoesOn) {
  const SmallDisk disk(folder_.Path("spool"));
  if (!disk.mounted()) GTEST_SKIP() << "no right to mount a small tmpfs; spool_test covers it with RLIMIT_FSIZE";
  {
    ServiceProcess service(Flags());
    ASSERT_OK(Push(service, 1));
    ASSERT_TRUE(Eventually([&] { return IsSpooled(service, 1); })) << service.Err();
    ASSERT_OK(Push(service, 2));
    ASSERT_TRUE(Eventually([&] { return !Info(service).spool().last_error().empty(); }));
    const v1::SpoolInfo info = Info(service).spool();
    EXPECT_THAT(info.last_error(), AllOf(HasSubstr("default/2"), HasSubstr("No space left on device")));
    EXPECT_GT(info.last_error_at_ns(), 0);
    EXPECT_EQ(info.pending(), 1u);
    EXPECT_EQ(info.versions(), 1u);
    EXPECT_THAT(service.Err(), HasSubstr("the spool cannot be written; the service goes on from memory"));
    EXPECT_THAT(Refit({"status", "--server", service.address()}).out,
                AllOf(HasSubstr("1 version"), HasSubstr("failing: "), HasSubstr("No space left on device")));
    auto pulled = Pull(service, Transport::kAuto);
    ASSERT_OK(pulled);
    ExpectIs(*pulled, 2);
    service.Kill();
  }
  ServiceProcess service(Flags({"--retain", "1"}));
  auto pulled = Pull(service, Transport::kAuto);
  ASSERT_OK(pulled);
  ExpectIs(*pulled, 1);  // the last one that was on disk
  ASSERT_OK(Push(service, 2));
}

TEST_F(SpoolProcess, RefusesToStartWithWhatCannotWork) {
  ServiceProcess streaming(Flags({"--retain", "0"}));
  EXPECT_EQ(streaming.address(), "");
  const Outcome streamed = streaming.Wait();
  EXPECT_EQ(streamed.code, 1);
  EXPECT_THAT(streamed.err, AllOf(HasSubstr("--spool"), HasSubstr("--retain 0")));
  ServiceProcess first(Flags());
  ASSERT_NE(first.address(), "");
  ServiceProcess second(Flags());
  const Outcome refused = second.Wait();
  EXPECT_EQ(refused.code, 1);
  EXPECT_THAT(refused.err, HasSubstr("is used by another refit-server"));
  EXPECT_EQ(first.Terminate().code, 0);
}

}  // namespace
}  // namespace refit
