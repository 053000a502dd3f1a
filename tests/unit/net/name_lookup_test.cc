// A service whose name leads somewhere else after a while. The names are this test's own: it stands in for getaddrinfo,
// which gRPC's "native" resolver asks.
#include <arpa/inet.h>
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <netdb.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>

#include "common/net/channel.h"
#include "common/net/steady_deadline.h"
#include "refit/v1/pull.grpc.pb.h"

namespace {

constexpr char kName[] = "moving.test";
// Where the name leads; null: it is not found.
std::atomic<const char*> leads_to{nullptr};
std::atomic<int> lookups{0};

}  // namespace

extern "C" int getaddrinfo(const char* node, const char* service, const addrinfo* hints, addrinfo** result) {
  static const auto real = reinterpret_cast<decltype(&getaddrinfo)>(dlsym(RTLD_NEXT, "getaddrinfo"));
  if (node == nullptr || std::string_view(node) != kName) return real(node, service, hints, result);
  ++lookups;
  const char* address = leads_to;
  return address == nullptr ? EAI_NONAME : real(address, service, hints, result);
}

namespace refit {
namespace {

using std::chrono::seconds;
using std::chrono::steady_clock;

// A service on `host`, at a port of its own or the one given.
class Service {
 public:
  explicit Service(const std::string& host, int port = 0) {
    grpc::ServerBuilder builder;
    ConfigureServer(builder, kMaxMessageBytes);
    builder.AddListeningPort(host + ":" + std::to_string(port), grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(&pull_);
    server_ = builder.BuildAndStart();
  }
  ~Service() {
    if (server_ != nullptr) server_->Shutdown(SteadyDeadline(std::chrono::milliseconds(0)));
  }
  int port() const { return port_; }
  bool runs() const { return server_ != nullptr; }

 private:
  v1::PullService::Service pull_;
  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;
};

bool ConnectedWithin(const std::shared_ptr<grpc::Channel>& channel, std::chrono::milliseconds patience) {
  return channel->WaitForConnected(SteadyDeadline(patience));
}

// Until the channel knows that nothing answers.
void AwaitFailure(grpc::Channel& channel) {
  const auto give_up = steady_clock::now() + seconds(10);
  for (auto state = channel.GetState(true); state != GRPC_CHANNEL_TRANSIENT_FAILURE; state = channel.GetState(true)) {
    ASSERT_LT(steady_clock::now(), give_up);
    channel.WaitForStateChange(state, SteadyDeadline(seconds(1)));
  }
}

TEST(NameLookup, ServiceIsFoundUnderItsNewAddress) {
  auto first = std::make_unique<Service>("127.0.0.1");
  ASSERT_TRUE(first->runs());
  const int port = first->port();
  leads_to = "127.0.0.1";
  const auto channel = Connect({.address = std::string(kName) + ":" + std::to_string(port)});
  ASSERT_TRUE(channel.ok()) << channel.status();
  first.reset();
  AwaitFailure(**channel);
  const Service second("127.0.0.2", port);
  ASSERT_TRUE(second.runs());
  leads_to = "127.0.0.2";
  EXPECT_TRUE(ConnectedWithin(*channel, seconds(5)));
}

TEST(NameLookup, NameThatWasGoneForLongIsFoundAgainSoon) {
  auto first = std::make_unique<Service>("127.0.0.1");
  ASSERT_TRUE(first->runs());
  const int port = first->port();
  leads_to = "127.0.0.1";
  const auto channel = Connect({.address = std::string(kName) + ":" + std::to_string(port)});
  ASSERT_TRUE(channel.ok()) << channel.status();
  first.reset();
  leads_to = nullptr;
  const int before = lookups;
  AwaitFailure(**channel);
  // gRPC's own pauses between lookups have grown to more than 6 s by then.
  EXPECT_FALSE(ConnectedWithin(*channel, seconds(14)));
  EXPECT_GT(lookups, before + 2);
  const Service second("127.0.0.2", port);
  ASSERT_TRUE(second.runs());
  leads_to = "127.0.0.2";
  EXPECT_TRUE(ConnectedWithin(*channel, seconds(5)));
}

}  // namespace
}  // namespace refit

int main(int argc, char** argv) {
  setenv("GRPC_DNS_RESOLVER", "native", 1);
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
