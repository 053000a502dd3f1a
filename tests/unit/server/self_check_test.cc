#include "server/process/self_check.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "common/certificates/certificate_folder.h"
#include "refit/server.h"
#include "tests/support/sanitized.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_folder.h"

namespace refit {
namespace {

using absl::StatusCode;
using std::chrono::milliseconds;
using ::testing::HasSubstr;

constexpr milliseconds kPatience{200};
constexpr absl::Duration kLong = absl::Seconds(30);
constexpr absl::Duration kSeveralTimesThePatience = absl::Seconds(1);
// With a real server, which takes its time in a build with a sanitizer.
constexpr int kSlowness = kSanitized ? 4 : 1;
constexpr milliseconds kServersPatience{500 * kSlowness};
constexpr absl::Duration kSeveralTimesTheServersPatience = absl::Seconds(2 * kSlowness);

// A socket that listens, on which nobody accepts unless the test does.
class Listener {
 public:
  Listener() : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(listen(fd_, 16), 0);
    EXPECT_EQ(getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size), 0);
    port_ = ntohs(address.sin_port);
  }
  ~Listener() { close(fd_); }

  std::string address() const { return absl::StrCat("127.0.0.1:", port_); }
  int fd() const { return fd_; }

 private:
  int fd_;
  int port_ = 0;
};

// A check, and what it found.
struct Checked {
  explicit Checked(const std::string& address, milliseconds patience = kPatience, bool tls = false) {
    auto started = SelfCheck::Start({address, tls, patience}, [this](const absl::Status& status) {
      failure = status;
      failed.Notify();
    });
    EXPECT_OK(started);
    if (started.ok()) check = *std::move(started);
  }

  absl::Status failure;
  absl::Notification failed;
  std::unique_ptr<SelfCheck> check;
};

TEST(SelfCheck, AConnectionThatNobodyAcceptsIsAFailure) {
  for (const bool tls : {false, true}) {
    const Listener listener;
    Checked checked(listener.address(), kPatience, tls);
    ASSERT_TRUE(checked.failed.WaitForNotificationWithTimeout(kLong));
    EXPECT_THAT(checked.failure, StatusIs(StatusCode::kDeadlineExceeded, HasSubstr("nobody has answered")));
    EXPECT_THAT(std::string(checked.failure.message()), HasSubstr(listener.address()));
  }
}

TEST(SelfCheck, AnAddressWhereNobodyListensIsAFailure) {
  std::string address;
  { address = Listener().address(); }
  Checked checked(address);
  ASSERT_TRUE(checked.failed.WaitForNotificationWithTimeout(kLong));
  EXPECT_THAT(checked.failure, StatusIs(StatusCode::kNotFound, HasSubstr("refused")));
}

// As one does that turns the greeting down.
TEST(SelfCheck, AServerThatHangsUpIsAlive) {
  const Listener listener;
  std::thread server([&] {
    while (true) {
      const int peer = accept(listener.fd(), nullptr, nullptr);
      if (peer < 0) return;
      close(peer);
    }
  });
  {
    Checked checked(listener.address());
    EXPECT_FALSE(checked.failed.WaitForNotificationWithTimeout(kSeveralTimesThePatience)) << checked.failure;
  }
  shutdown(listener.fd(), SHUT_RDWR);
  server.join();
}

TEST(SelfCheck, ARealServerIsAlive) {
  const std::string socket_path = absl::StrCat(::testing::TempDir(), "/self-check-", getpid(), ".sock");
  for (const std::string& listen : {std::string("127.0.0.1:0"), std::string("localhost:0"), "unix:" + socket_path}) {
    ServerOptions options;
    options.listen = listen;
    auto server = RefitServer::Start(options);
    ASSERT_OK(server);
    Checked checked((*server)->address(), kServersPatience);
    EXPECT_FALSE(checked.failed.WaitForNotificationWithTimeout(kSeveralTimesTheServersPatience))
        << listen << ": " << checked.failure;
  }
}

// With and without certificates of clients: the check has none. That it is logged nowhere: grpc_holes_test.
TEST(SelfCheck, ARealServerWithTlsIsAlive) {
  const TemporaryFolder certificates;
  ASSERT_OK(MakeCertificateFolder(certificates.Path("c"), {}));
  for (const std::string& client_ca : {std::string(), certificates.Path("c/ca.pem")}) {
    ServerOptions options;
    options.listen = "127.0.0.1:0";
    options.security = {.certificate = certificates.Path("c/server.pem"),
                        .key = certificates.Path("c/server.key"),
                        .client_ca = client_ca};
    auto server = RefitServer::Start(options);
    ASSERT_OK(server);
    Checked checked((*server)->address(), kServersPatience, /*tls=*/true);
    EXPECT_FALSE(checked.failed.WaitForNotificationWithTimeout(kSeveralTimesTheServersPatience)) << checked.failure;
  }
}

TEST(SelfCheck, StopsAmidAnAttempt) {
  const Listener listener;
  const auto begin = std::chrono::steady_clock::now();
  { Checked checked(listener.address(), std::chrono::minutes(10)); }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::minutes(1));
}

TEST(SelfCheck, AnAddressThatDoesNotResolveIsRefused) {
  for (const std::string& address :
       {std::string(), std::string("127.0.0.1:no-such-port"), "unix:" + std::string(200, 'p')}) {
    auto check = SelfCheck::Start({address, /*tls=*/false, kPatience}, [](const absl::Status&) {});
    EXPECT_THAT(check, StatusIs(StatusCode::kInvalidArgument, HasSubstr("cannot check"))) << address;
  }
}

}  // namespace
}  // namespace refit
