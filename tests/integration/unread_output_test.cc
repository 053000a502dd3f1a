// Nobody reads what our programs write: they do their work nonetheless, and end when they are told to.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <memory>
#include <string>
#include <vector>

#include "refit/inspector.h"
#include "refit/subscriber.h"
#include "tests/integration/service_process.h"
#include "tests/support/eventually.h"
#include "tests/support/push.h"
#include "tests/support/status_matchers.h"

namespace refit {
namespace {

using ::testing::HasSubstr;

// A pipe whose reader reads only when it is asked to; small, so that it is soon full.
class Unread {
 public:
  Unread() {
    EXPECT_EQ(pipe2(fds_.data(), O_CLOEXEC), 0);
    fcntl(fds_[0], F_SETPIPE_SZ, 4096);
  }
  ~Unread() {
    for (const int fd : fds_) close(fd);
  }
  Unread(const Unread&) = delete;
  Unread& operator=(const Unread&) = delete;

  int writer() const { return fds_[1]; }
  void Fill() const {
    const std::string line(4095, 'x');
    while (IsWritable()) ASSERT_GT(write(fds_[1], (line + "\n").data(), 4096), 0);
  }
  bool IsWritable() const {
    pollfd writable = {fds_[1], POLLOUT, 0};
    return poll(&writable, 1, 0) > 0;
  }
  // What has come by now.
  std::string Read() const {
    std::string text;
    std::array<char, 4096> part;
    pollfd readable = {fds_[0], POLLIN, 0};
    while (poll(&readable, 1, 0) > 0) text.append(part.data(), static_cast<size_t>(read(fds_[0], part.data(), 4096)));
    return text;
  }
  void CloseReader() {
    close(fds_[0]);
    fds_[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
  }

 private:
  std::array<int, 2> fds_ = {-1, -1};
};

const std::vector<TensorSpec> kSpecs = {{"w", DType::kU8, {16}}};

absl::Status PushSmall(const ServiceProcess& service, uint64_t version) {
  return PushIdentity(service.Channel(), version, kSpecs, [](size_t) { return std::vector<std::byte>(16); }).status();
}

TEST(UnreadOutput, AServiceServesOnAndEnds) {
  const Unread log;
  log.Fill();
  ServiceProcess service({"--grace", "2"}, 0, {.err = log.writer()});
  ASSERT_NE(service.port(), 0);
  ASSERT_OK(PushSmall(service, 1));
  auto subscriber = *Subscriber::Connect(service.Channel(Transport::kWire));
  for (int i = 0; i < 200; ++i) ASSERT_OK(subscriber->Pull({}));
  ASSERT_OK(PushSmall(service, 2));
  auto inspector = *Inspector::Connect(service.Channel());
  ASSERT_OK(inspector->ServerInfo());
  service.process().Signal(SIGTERM);
  EXPECT_EQ(service.process().Wait(std::chrono::seconds(10)).code, 0);
}

TEST(UnreadOutput, AServiceSaysHowManyLinesItHasDropped) {
  const Unread log;
  log.Fill();
  ServiceProcess service({"--log-level", "debug"}, 0, {.err = log.writer()});
  ASSERT_NE(service.port(), 0);
  ASSERT_OK(PushSmall(service, 1));
  auto subscriber = *Subscriber::Connect(service.Channel(Transport::kWire));
  for (int i = 0; i < 12'000; ++i) ASSERT_OK(subscriber->Pull({}));  // about 100 bytes each, and 1 MiB is kept
  std::string text;
  EXPECT_TRUE(Eventually([&] {
    (void)subscriber->Pull({});
    text += log.Read();
    return text.find("log lines dropped") != std::string::npos;
  }));
  service.process().Signal(SIGTERM);
  EXPECT_EQ(service.process().Wait(std::chrono::seconds(20)).code, 0);
}

TEST(UnreadOutput, AReaderThatIsGoneDoesNotEndAService) {
  Unread log;
  log.CloseReader();
  ServiceProcess service({}, 0, {.err = log.writer()});
  ASSERT_NE(service.port(), 0);
  ASSERT_OK(PushSmall(service, 1));
  ASSERT_OK(PushSmall(service, 2));
  service.process().Signal(SIGTERM);
  EXPECT_EQ(service.process().Wait(std::chrono::seconds(20)).code, 0);
}

TEST(UnreadOutput, AServiceThatCannotStartEnds) {
  const Unread log;
  log.Fill();
  ServiceProcess taken;
  ServiceProcess service({}, taken.port(), {.err = log.writer()});
  EXPECT_EQ(service.process().Wait(std::chrono::seconds(20)).code, 1);
}

TEST(UnreadOutput, AWorkerThatNobodyListensToInstallsOn) {
  ServiceProcess service;
  const Unread out;
  const Unread err;
  out.Fill();
  err.Fill();
  TemporaryFolder folder;
  auto follow = Subprocess::Start(
      "refit", {"follow", "-s", service.address(), "--worker", "w0", "--out", folder.Path("hf.safetensors")},
      {.out = out.writer(), .err = err.writer()});
  auto publisher = *Publisher::Connect(service.Channel());
  for (uint64_t version = 1; version <= 40; ++version) {
    ASSERT_OK(PushSmall(service, version));
    Publisher::Await await;
    await.version = version;
    await.timeout = std::chrono::seconds(30);
    ASSERT_OK(publisher->AwaitWorkers(await));
  }
  follow->Signal(SIGTERM);
  EXPECT_EQ(follow->Wait(std::chrono::seconds(20)).code, 130);
}

TEST(UnreadOutput, AWorkerEndsWithItsReader) {
  ServiceProcess service;
  Unread out;
  out.CloseReader();
  auto follow = Subprocess::Start("refit", {"follow", "-s", service.address()}, {.out = out.writer()});
  uint64_t version = 0;
  EXPECT_TRUE(Eventually([&] {
    (void)PushSmall(service, ++version);
    return !follow->IsRunning();
  }));
  const Outcome outcome = follow->Wait();
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.err, "");
}

TEST(UnreadOutput, AWatchEndsWhenItIsTold) {
  ServiceProcess service;
  const Unread out;
  out.Fill();
  auto watch = Subprocess::Start("refit", {"watch", "-s", service.address()}, {.out = out.writer()});
  for (uint64_t version = 1; version <= 40; ++version) ASSERT_OK(PushSmall(service, version));
  watch->Signal(SIGTERM);
  EXPECT_EQ(watch->Wait(std::chrono::seconds(20)).code, 130);
}

TEST(UnreadOutput, AFailureIsToldByTheExitCodeAtLeast) {
  const Unread err;
  err.Fill();
  auto pull =
      Subprocess::Start("refit", {"pull", "-s", "127.0.0.1:1", "--connect-timeout", "1"}, {.err = err.writer()});
  EXPECT_EQ(pull->Wait(std::chrono::seconds(20)).code, 4);
}

TEST(UnreadOutput, ProgressHoldsNoTransferUp) {
  ServiceProcess service;
  ASSERT_OK(PushSmall(service, 1));
  const Unread err;
  err.Fill();
  auto pull = Subprocess::Start("refit", {"pull", "-s", service.address()}, {.err = err.writer()});
  const Outcome outcome = pull->Wait(std::chrono::seconds(20));
  EXPECT_EQ(outcome.code, 0);
  EXPECT_THAT(outcome.out, HasSubstr("1 tensor"));
}

}  // namespace
}  // namespace refit
