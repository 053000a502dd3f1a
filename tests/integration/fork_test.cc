// A trainer, a worker or an embedded service forks: the child ends nothing of its parent's, and waits for nothing.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "refit/inspector.h"
#include "refit/publisher.h"
#include "refit/subscriber.h"
#include "refit/worker.h"
#include "tests/support/fleet.h"
#include "tests/support/forked.h"

namespace refit {
namespace {

ChannelOptions ChannelTo(const RefitServer& server, Transport transport) {
  ChannelOptions channel = WireTo(server.address());
  channel.transport = transport;
  return channel;
}

// Large enough to be mapped.
const TestModel& Model() {
  static const TestModel model(2, 2048, 512);
  return model;
}

bool Refused(const absl::Status& status) {
  return absl::IsFailedPrecondition(status) && status.message().find("fork") != absl::string_view::npos;
}

class Fork : public ::testing::TestWithParam<Transport> {};
INSTANTIATE_TEST_SUITE_P(Transports, Fork, ::testing::Values(Transport::kWire, Transport::kSharedMemory));

TEST_P(Fork, AClientsChildIsRefusedAndTheParentGoesOn) {
  const std::unique_ptr<RefitServer> server = StartService();
  const ChannelOptions channel = ChannelTo(*server, GetParam());
  auto publisher = *Publisher::Connect(channel);
  ASSERT_OK(Model().Push(*publisher, 1));
  auto subscriber = *Subscriber::Connect(channel);
  auto inspector = *Inspector::Connect(channel);
  WorkerOptions options;
  options.install = [](StagedVersion&) { return absl::OkStatus(); };
  auto worker = *Worker::Create(channel, options);
  ASSERT_OK(worker->Refit());
  auto pulled = *subscriber->Pull({});
  auto watch = subscriber->StartWatch({});
  auto push = *publisher->Open(Model().Options(2), Model().specs());
  ASSERT_OK(push->Append(0, Model().Bytes(2, 0)));

  EXPECT_EQ(InChild([&] {
              const std::vector<absl::Status> answers = {
                  publisher->Open(Model().Options(3), Model().specs()).status(),
                  publisher->Abort("default", 2, "no").status(),
                  publisher->ReleaseInstalls("default", 2).status(),
                  publisher->AwaitWorkers({}).status(),
                  push->Append(1, Model().Bytes(2, 1)),
                  push->Commit().status(),
                  push->Abort("no"),
                  subscriber->Pull({}).status(),
                  subscriber->Watch({}, [](const auto&) { return true; }),
                  subscriber->StartWatch({})->Next(std::chrono::seconds(5)).status(),
                  watch->Next(std::chrono::seconds(5)).status(),
                  subscriber->Report({}).status(),
                  worker->Follow(),
                  worker->Refit().status(),
                  worker->RollBack().status(),
                  worker->WaitForVersion(2, std::chrono::seconds(5)),
                  inspector->ServerInfo().status(),
                  Publisher::Connect(channel).status(),
                  server->OpenVersion({}, Model().specs()).status(),
                  RefitServer::Start({}).status()};
              for (size_t i = 0; i < answers.size(); ++i) {
                if (!Refused(answers[i])) return static_cast<int>(i) + 1;
              }
              publisher->Cancel();
              subscriber->Cancel();
              worker->Stop();
              if (worker->installed().has_value() || worker->torn()) return 100;
              const std::vector<std::byte> expected = Model().Bytes(1, 0);
              if (pulled.tensors[0].data->span() != absl::MakeConstSpan(expected)) return 101;
              pulled.tensors.clear();
              push.reset();
              watch.reset();
              worker.reset();
              subscriber.reset();
              publisher.reset();
              inspector.reset();
              return 0;
            }),
            0);

  EXPECT_EQ(worker->installed(), 1);
  EXPECT_OK(watch->Next(std::chrono::seconds(10)));
  EXPECT_OK(push->Append(1, Model().Bytes(2, 1)));
  EXPECT_OK(push->Commit());
  EXPECT_OK(worker->Refit());
  EXPECT_OK(inspector->ServerInfo());
  pulled.tensors.clear();
  EXPECT_EQ((*subscriber->Pull({})).result.version.version, 2);
}

TEST(ForkOfAService, TheChildLeavesItAlone) {
  std::unique_ptr<RefitServer> server = StartService();
  auto push = *server->OpenVersion(Model().Options(1), Model().specs());
  EXPECT_EQ(InChild([&] {
              if (!Refused(push->Append(0, Model().Bytes(1, 0)))) return 1;
              if (!Refused(push->Commit().status())) return 2;
              if (!Refused(push->Abort("no"))) return 3;
              push.reset();
              server->Shutdown(std::chrono::seconds(5));
              server.reset();
              return 0;
            }),
            0);
  for (size_t i = 0; i < Model().specs().size(); ++i) ASSERT_OK(push->Append(i, Model().Bytes(1, i)));
  ASSERT_OK(push->Commit());
  auto subscriber = Subscriber::Connect(WireTo(server->address()));
  ASSERT_OK(subscriber);
  EXPECT_OK((*subscriber)->Pull({}));
}

// Otherwise a service that is restarted could not listen, and whoever connects would wait for nobody.
TEST(ForkOfAService, TheChildKeepsNoPort) {
  ServerOptions options;
  options.metrics = "127.0.0.1:0";
  std::unique_ptr<RefitServer> server = StartService(options);
  options.listen = server->address();
  options.metrics = server->metrics_address();
  int ended[2];
  ASSERT_EQ(pipe(ended), 0);
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);
    char byte = 0;
    close(ended[1]);
    (void)!read(ended[0], &byte, 1);
    _exit(0);
  }
  auto subscriber = Subscriber::Connect(WireTo(server->address()));  // the parent still listens
  EXPECT_OK(subscriber);
  subscriber->reset();
  server.reset();
  EXPECT_OK(RefitServer::Start(options));
  close(ended[0]);
  close(ended[1]);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

// The parent gives the memory back while the child still has it mapped.
TEST(ForkOfAWorker, MappedTensorsKeepTheirValuesInTheChild) {
  ServerOptions options;
  options.store.retain_versions = 1;
  const std::unique_ptr<RefitServer> server = StartService(options);
  const ChannelOptions channel = ChannelTo(*server, Transport::kSharedMemory);
  auto publisher = *Publisher::Connect(channel);
  ASSERT_OK(Model().Push(*publisher, 1));
  auto subscriber = *Subscriber::Connect(channel);
  auto pulled = *subscriber->Pull({});
  int go_on[2];
  ASSERT_EQ(pipe(go_on), 0);
  const pid_t child = fork();
  if (child == 0) {
    alarm(30);
    char byte = 0;
    close(go_on[1]);
    (void)!read(go_on[0], &byte, 1);
    const std::vector<std::byte> expected = Model().Bytes(1, 0);
    _exit(pulled.tensors[0].data->span() == absl::MakeConstSpan(expected) ? 0 : 1);
  }
  pulled.tensors.clear();
  for (uint64_t version = 2; version < 8; ++version) {
    ASSERT_OK(Model().Push(*publisher, version));
    ASSERT_OK(subscriber->Pull({}));
  }
  close(go_on[0]);
  close(go_on[1]);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST(ForkOfAWorker, WhileAnotherThreadFollows) {
  const std::unique_ptr<RefitServer> server = StartService();
  const ChannelOptions channel = ChannelTo(*server, Transport::kAuto);
  auto publisher = *Publisher::Connect(channel);
  std::atomic<uint64_t> installed{0};
  WorkerOptions options;
  options.install = [&](StagedVersion& staged) {
    installed = staged.version.version;
    return absl::OkStatus();
  };
  auto worker = *Worker::Create(channel, options);
  std::thread follower([&] { EXPECT_OK(worker->Follow()); });
  std::thread waiter([&] { (void)worker->WaitForVersion(1000, std::chrono::seconds(60)); });
  for (uint64_t version = 1; version <= 20; ++version) {
    ASSERT_OK(Model().Push(*publisher, version));
    EXPECT_EQ(InChild([&] {
                worker.reset();
                publisher.reset();
                return 0;
              }),
              0);
    ASSERT_OK(worker->WaitForVersion(version, std::chrono::seconds(30)));
  }
  worker->Stop();
  follower.join();
  waiter.join();
  EXPECT_EQ(installed, 20);
}

}  // namespace
}  // namespace refit
