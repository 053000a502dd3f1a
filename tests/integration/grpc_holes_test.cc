// What is known to stop packaged gRPC from serving, done to a real refit-server: afterwards a healthy client is served
// within 5 s, or the process has ended with a reason, so that its supervisor restarts it.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/certificates/certificate_folder.h"
#include "common/net/status.h"
#include "refit/v1/inspect.grpc.pb.h"
#include "tests/integration/service_process.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_folder.h"

namespace refit {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kHealed{5};
constexpr std::chrono::seconds kBusyMachine{5};
constexpr int kUnreachable = 3;  // as --help says

// Any client, as far as TCP goes.
class Connection {
 public:
  explicit Connection(int port) : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
  }
  Connection(Connection&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)), connected_(std::exchange(other.connected_, false)) {}
  Connection& operator=(Connection&&) = delete;
  ~Connection() {
    if (fd_ >= 0) close(fd_);
  }

  bool connected() const { return connected_; }
  void Send(const std::string& bytes) const { (void)send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL); }
  // Whether the server hangs up in time; what it sends before is dropped.
  bool HungUp(std::chrono::milliseconds patience) const {
    const Clock::time_point deadline = Clock::now() + patience;
    char dropped[4096];
    while (true) {
      pollfd readable = {fd_, POLLIN, 0};
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
      if (left.count() <= 0 || poll(&readable, 1, static_cast<int>(left.count())) <= 0) return false;
      if (recv(fd_, dropped, sizeof(dropped), 0) <= 0) return true;
    }
  }

 private:
  int fd_;
  bool connected_ = false;
};

std::vector<Connection> OpenConnections(int port, int count) {
  std::vector<Connection> connections;
  connections.reserve(static_cast<size_t>(count));
  for (int i = 0; i < count; ++i) connections.emplace_back(port);
  return connections;
}

// A call on a connection of its own, with this much metadata.
absl::Status GetServerInfo(const std::string& address, std::chrono::milliseconds patience, size_t metadata_bytes = 0) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  const auto channel = grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + patience);
  context.set_wait_for_ready(true);
  if (metadata_bytes > 0) context.AddMetadata("x-long", std::string(metadata_bytes, 'm'));
  v1::GetServerInfoResponse response;
  return FromGrpc(v1::InspectService::NewStub(channel)->GetServerInfo(&context, {}, &response));
}

// A new client is served within kHealed, and the process still runs.
void ExpectServed(ServiceProcess& service) {
  EXPECT_OK(GetServerInfo(service.address(), kHealed));
  EXPECT_TRUE(service.process().IsRunning()) << service.process().Err();
}

// A new client is served, or the process has ended by itself and says why; either within kHealed. What takes its place
// serves at the same address.
void ExpectServedOrEnded(std::unique_ptr<ServiceProcess> service) {
  const int port = service->port();
  if (GetServerInfo(service->address(), kHealed).ok()) return;
  // It has ended by now, unless this machine is too busy.
  const Outcome outcome = service->process().Wait(kBusyMachine);
  EXPECT_EQ(outcome.code, kUnreachable) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("unreachable, ending so that a supervisor restarts it"));
  EXPECT_THAT(outcome.err, HasSubstr("127.0.0.1:" + std::to_string(port)));
  service.reset();

  ServiceProcess restarted({}, port);
  ExpectServed(restarted);
}

TEST(GrpcHoles, HealthyServiceStays) {
  ServiceProcess service({"--self-check", "0.2"});
  // Many times the patience.
  EXPECT_EQ(service.process().Wait(std::chrono::seconds(2)).code, 137) << "ended by itself";
}

// With TLS the check speaks TLS, with certificates of clients or without: the service sees nothing that it would log.
TEST(GrpcHoles, HealthyServiceStaysAndIsQuietWithTls) {
  const TemporaryFolder folder;
  ASSERT_OK(MakeCertificateFolder(folder.Path("c"), {}));
  const std::vector<std::string> tls = {
      "--self-check", "0.2", "--tls-cert", folder.Path("c/server.pem"), "--tls-key", folder.Path("c/server.key")};
  std::vector<std::string> mutual_tls = tls;
  mutual_tls.insert(mutual_tls.end(), {"--tls-client-ca", folder.Path("c/ca.pem")});
  for (const std::vector<std::string>& flags : {tls, mutual_tls}) {
    ServiceProcess service(flags);
    const Outcome outcome = service.process().Wait(std::chrono::seconds(2));
    EXPECT_EQ(outcome.code, 137) << "ended by itself: " << outcome.err;
    EXPECT_THAT(outcome.err, Not(HasSubstr("andshake"))) << outcome.err;
  }
}

TEST(GrpcHoles, OutOfDescriptorsWhileConnectionsStay) {
  auto service = std::make_unique<ServiceProcess>();
  service->LeaveDescriptors(20);
  const std::vector<Connection> held = OpenConnections(service->port(), 120);
  ExpectServedOrEnded(std::move(service));
}

TEST(GrpcHoles, OutOfDescriptorsAndConnectionsGone) {
  auto service = std::make_unique<ServiceProcess>();
  service->LeaveDescriptors(20);
  { const std::vector<Connection> opened = OpenConnections(service->port(), 120); }
  ExpectServedOrEnded(std::move(service));
}

TEST(GrpcHoles, IdleConnections) {
  ServiceProcess service;
  const std::vector<Connection> idle = OpenConnections(service.port(), 120);
  for (const Connection& connection : idle) ASSERT_TRUE(connection.connected());
  ExpectServed(service);
  // Whoever says nothing does not keep a descriptor for long.
  for (const Connection& connection : idle) EXPECT_TRUE(connection.HungUp(std::chrono::seconds(30)));
  ExpectServed(service);
}

// As those of a worker that pulls over several, now and then. gRPC itself would answer one ping every 5 s.
TEST(GrpcHoles, IdleConnectionsOfOneClientStay) {
  ServiceProcess service({"--peer-timeout", "2"});
  std::vector<std::shared_ptr<grpc::Channel>> channels;
  for (int i = 0; i < 8; ++i) {
    auto channel = Connect(service.Channel(Transport::kWire));
    ASSERT_OK(channel);
    channels.push_back(*std::move(channel));
  }
  const uint64_t before = service.OpenDescriptors();
  std::this_thread::sleep_for(std::chrono::seconds(5));  // idle, which is what is tested
  EXPECT_EQ(service.OpenDescriptors(), before);
}

TEST(GrpcHoles, GarbageInsteadOfHttp2) {
  ServiceProcess service;
  std::mt19937 random(7);
  const std::string preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
  std::vector<Connection> connections;
  for (int i = 0; i < 100; ++i) {
    std::string garbage;
    for (int byte = 0; byte < 1000; ++byte) garbage.push_back(static_cast<char>(random()));
    if (i % 3 == 0) garbage.insert(0, preface);
    if (i % 3 == 1) garbage = "GET / HTTP/1.1\r\nHost: refit\r\n\r\n";
    connections.emplace_back(service.port());
    ASSERT_TRUE(connections.back().connected());
    connections.back().Send(garbage);
  }
  ExpectServed(service);
  for (const Connection& connection : connections) EXPECT_TRUE(connection.HungUp(std::chrono::seconds(30)));
  ExpectServed(service);
}

TEST(GrpcHoles, OversizedMetadata) {
  ServiceProcess service;
  for (const size_t bytes : {20u << 10, 100u << 10, 4u << 20}) {
    EXPECT_FALSE(GetServerInfo(service.address(), kHealed, bytes).ok()) << bytes;
    ExpectServed(service);
  }
}

TEST(GrpcHoles, StartsWithAllTheDescriptorsItMayHave) {
  ServiceProcess service;
  const std::string limits = ReadFile("/proc/" + std::to_string(service.process().pid()) + "/limits");
  const size_t line = limits.find("Max open files");
  ASSERT_NE(line, std::string::npos);
  std::istringstream fields(limits.substr(line + std::string("Max open files").size()));
  uint64_t soft = 0;
  uint64_t hard = 0;
  fields >> soft >> hard;
  EXPECT_GT(soft, 0u);
  EXPECT_EQ(soft, hard);
}

}  // namespace
}  // namespace refit
