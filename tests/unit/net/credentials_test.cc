// TLS between channels and servers of gRPC's, with certificates from files.
#include "common/net/credentials.h"

#include <gtest/gtest.h>
#include <openssl/crypto.h>
#include <unistd.h>

#include <cstdlib>
#include <deque>
#include <filesystem>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/certificates/certificate_authority.h"
#include "common/net/channel.h"
#include "refit/v1/inspect.grpc.pb.h"
#include "tests/support/files.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/net/loopback_server.h"

namespace refit {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kToken[] = "0123456789abcdef-token";

CertificateAuthority MakeAuthority() {
  auto authority = CertificateAuthority::Create("test authority", hours(1));
  EXPECT_OK(authority);
  return *std::move(authority);
}

CertificateRequest Localhost() {
  return {.common_name = "server", .is_server = true, .hosts = {"localhost", "127.0.0.1"}};
}

// Writes NAME.pem and NAME.key.
IssuedCertificate Issue(const ScratchFolder& folder, const CertificateAuthority& authority, const std::string& name,
                        const CertificateRequest& request) {
  auto issued = authority.Issue(request);
  EXPECT_OK(issued);
  folder.Write(name + ".pem", issued->certificate);
  folder.Write(name + ".key", issued->key);
  return *std::move(issued);
}

// Remembers who called with what.
class InfoService final : public v1::InspectService::Service {
 public:
  grpc::Status GetServerInfo(grpc::ServerContext* context, const v1::GetServerInfoRequest*,
                             v1::GetServerInfoResponse*) override {
    const absl::MutexLock lock(&mutex_);
    authorization_.clear();
    const auto [begin, end] = context->client_metadata().equal_range("authorization");
    for (auto it = begin; it != end; ++it)
      absl::StrAppend(&authorization_, std::string(it->second.data(), it->second.size()));
    return grpc::Status::OK;
  }
  std::string authorization() {
    const absl::MutexLock lock(&mutex_);
    return authorization_;
  }

 private:
  absl::Mutex mutex_;
  std::string authorization_;
};

class SecureServer {
 public:
  explicit SecureServer(const std::shared_ptr<grpc::ServerCredentials>& credentials) {
    grpc::ServerBuilder builder;
    ConfigureServer(builder, kMaxMessageBytes);
    builder.AddListeningPort("127.0.0.1:0", credentials, &port_);
    builder.RegisterService(&service);
    server_ = builder.BuildAndStart();
  }
  ~SecureServer() { server_->Shutdown(std::chrono::system_clock::now()); }
  std::string address(const std::string& host = "127.0.0.1") const { return absl::StrCat(host, ":", port_); }

  InfoService service;

 private:
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

std::unique_ptr<SecureServer> Serve(const ServerSecurity& security, const ReloadReport& report = nullptr) {
  auto credentials = MakeServerCredentials(security, report);
  EXPECT_OK(credentials);
  return std::make_unique<SecureServer>(*std::move(credentials));
}

absl::Status Ask(grpc::Channel& channel) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
  v1::GetServerInfoResponse response;
  const grpc::Status status = v1::InspectService::NewStub(std::shared_ptr<grpc::Channel>(&channel, [](grpc::Channel*) {
                              }))->GetServerInfo(&context, {}, &response);
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

// Connects, and makes a call.
absl::Status TryCall(const std::string& address, const ClientSecurity& security,
                     milliseconds timeout = milliseconds(5000)) {
  ChannelOptions options{.address = address, .connect_timeout = timeout};
  options.security = security;
  auto channel = Connect(options);
  return channel.ok() ? Ask(**channel) : channel.status();
}

// Reports of reloads, to be waited for.
class Reports {
 public:
  ReloadReport Reporter() {
    return [this](const absl::Status& status) {
      const absl::MutexLock lock(&mutex_);
      reports_.push_back(status);
    };
  }
  absl::Status Next() {
    const absl::MutexLock lock(&mutex_);
    const auto any = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !reports_.empty(); };
    if (!mutex_.AwaitWithTimeout(absl::Condition(&any), absl::Seconds(20))) return absl::DeadlineExceededError("none");
    absl::Status status = reports_.front();
    reports_.pop_front();
    return status;
  }

 private:
  absl::Mutex mutex_;
  std::deque<absl::Status> reports_;
};

class CredentialsTest : public ::testing::Test {
 protected:
  CredentialsTest() {
    folder_.Write("ca.pem", authority_.certificate());
    Issue(folder_, authority_, "server", Localhost());
    Issue(folder_, authority_, "client", {.common_name = "client"});
  }
  ServerSecurity ServerFiles() const {
    return {.certificate = folder_.Path("server.pem"), .key = folder_.Path("server.key")};
  }
  ServerSecurity MutualServerFiles() const {
    ServerSecurity security = ServerFiles();
    security.client_ca = folder_.Path("ca.pem");
    return security;
  }
  ClientSecurity ClientFiles(const std::string& name = "client") const {
    return {
        .ca = folder_.Path("ca.pem"), .certificate = folder_.Path(name + ".pem"), .key = folder_.Path(name + ".key")};
  }

  const ScratchFolder folder_;
  const CertificateAuthority authority_ = MakeAuthority();
};

TEST_F(CredentialsTest, TlsConnectsByNameAndByAddress) {
  const auto server = Serve(ServerFiles());
  const ClientSecurity client{.ca = folder_.Path("ca.pem")};
  EXPECT_OK(TryCall(server->address(), client));
  EXPECT_OK(TryCall(server->address("localhost"), client));
}

TEST_F(CredentialsTest, MutualTlsConnects) { EXPECT_OK(TryCall(Serve(MutualServerFiles())->address(), ClientFiles())); }

TEST_F(CredentialsTest, AClientWithoutCertificateIsRefusedByMutualTls) {
  const auto server = Serve(MutualServerFiles());
  EXPECT_THAT(TryCall(server->address(), {.ca = folder_.Path("ca.pem")}, milliseconds(500)),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("no certificate of ours")));
}

TEST_F(CredentialsTest, AWrongAuthorityIsRefusedByBothSides) {
  const auto server = Serve(MutualServerFiles());
  const CertificateAuthority other = MakeAuthority();
  ClientSecurity distrusting = ClientFiles();
  distrusting.ca = folder_.Write("other.pem", other.certificate());
  EXPECT_THAT(TryCall(server->address(), distrusting, milliseconds(500)),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("certificate verify failed")));
  Issue(folder_, other, "stranger", {.common_name = "client"});
  EXPECT_THAT(TryCall(server->address(), ClientFiles("stranger"), milliseconds(500)),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("trust each other")));
}

TEST_F(CredentialsTest, AWrongHostNameIsRefused) {
  Issue(folder_, authority_, "server", {.common_name = "localhost", .is_server = true, .hosts = {"other.example"}});
  const auto server = Serve(ServerFiles());
  ClientSecurity client{.ca = folder_.Path("ca.pem")};
  EXPECT_THAT(TryCall(server->address(), client, milliseconds(500)),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("Hostname")));
  client.server_name = "other.example";
  EXPECT_OK(TryCall(server->address(), client));
  client.server_name = "another.example";
  EXPECT_THAT(TryCall(server->address(), client, milliseconds(500)), StatusIs(absl::StatusCode::kUnavailable));
}

TEST_F(CredentialsTest, AServersExpiredCertificateIsRefused) {
  const CertificateRequest expired{.common_name = "server",
                                   .is_server = true,
                                   .hosts = {"127.0.0.1"},
                                   .valid_from = hours(-2),
                                   .valid_until = hours(-1)};
  const IssuedCertificate issued = Issue(folder_, authority_, "server", expired);
  // A service of ours does not even begin with it.
  EXPECT_THAT(MakeServerCredentials(ServerFiles(), nullptr),
              StatusIs(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr("server.pem"), HasSubstr("expired on"))));
  grpc::SslServerCredentialsOptions options;
  options.pem_key_cert_pairs.push_back({issued.key, issued.certificate});
  const SecureServer server(grpc::SslServerCredentials(options));
  EXPECT_THAT(TryCall(server.address(), {.ca = folder_.Path("ca.pem")}, milliseconds(500)),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("certificate verify failed")));
}

TEST_F(CredentialsTest, AClientsExpiredCertificateIsRefused) {
  const IssuedCertificate issued =
      Issue(folder_, authority_, "old", {.common_name = "client", .valid_from = hours(-2), .valid_until = hours(-1)});
  const auto server = Serve(MutualServerFiles());
  EXPECT_THAT(TryCall(server->address(), ClientFiles("old")),
              StatusIs(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr("old.pem"), HasSubstr("expired on"))));
  // One that does not look at its own.
  const auto channel = grpc::CreateChannel(
      server->address(), grpc::SslCredentials({authority_.certificate(), issued.key, issued.certificate}));
  EXPECT_THAT(Ask(*channel), StatusIs(absl::StatusCode::kUnavailable));
  Issue(folder_, authority_, "early", {.common_name = "client", .valid_from = hours(1), .valid_until = hours(2)});
  EXPECT_THAT(TryCall(server->address(), ClientFiles("early")),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("valid only from")));
}

// gRPC's own words would be "Socket closed" here and "certificate verify failed" there.
TEST_F(CredentialsTest, ACertificateIsForOneEndOfAConnection) {
  const auto server = Serve(MutualServerFiles());
  EXPECT_THAT(TryCall(server->address(), ClientFiles("server")),
              StatusIs(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr("server.pem"), HasSubstr("clientAuth"))));
  EXPECT_THAT(
      MakeServerCredentials({.certificate = folder_.Path("client.pem"), .key = folder_.Path("client.key")}, nullptr),
      StatusIs(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr("client.pem"), HasSubstr("serverAuth"))));
  // One that does not look at its own.
  const auto channel = grpc::CreateChannel(
      server->address(), grpc::SslCredentials({authority_.certificate(), *ReadSmallFile(folder_.Path("server.key")),
                                               *ReadSmallFile(folder_.Path("server.pem"))}));
  EXPECT_THAT(Ask(*channel), StatusIs(absl::StatusCode::kUnavailable));
}

int CertificatesInMemory() {
  int count = 0;
  for (const auto& descriptor : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code error;  // the iterator's own is closed by now
    const std::string target = std::filesystem::read_symlink(descriptor, error).string();
    if (absl::StrContains(target, "refit-certificates")) ++count;
  }
  return count;
}

void AwaitNoCertificatesInMemory() {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (CertificatesInMemory() > 0 && std::chrono::steady_clock::now() < end) std::this_thread::yield();
  ASSERT_EQ(CertificatesInMemory(), 0);
}

// gRPC reads them by the descriptor's number, which may be another file's once it is closed.
TEST_F(CredentialsTest, WhatTheyReadIsOpenAsLongAsGrpcHasThem) {
  AwaitNoCertificatesInMemory();  // of the tests before
  auto credentials = MakeClientCredentials(ClientFiles(), "localhost:1", nullptr);
  ASSERT_OK(credentials);
  std::shared_ptr<grpc::Channel> channel = grpc::CreateChannel("localhost:1", *credentials);
  credentials->reset();
  EXPECT_EQ(CertificatesInMemory(), 2);
  channel.reset();
  AwaitNoCertificatesInMemory();

  auto server = Serve(MutualServerFiles());
  EXPECT_EQ(CertificatesInMemory(), 2);
  EXPECT_OK(TryCall(server->address(), ClientFiles()));
  server.reset();
  AwaitNoCertificatesInMemory();
}

TEST_F(CredentialsTest, PlainTextAndTlsDoNotHang) {
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_THAT(TryCall(Serve(ServerFiles())->address(), {}, milliseconds(700)),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("without TLS?")));
  EXPECT_THAT(TryCall(Serve({})->address(), {.ca = folder_.Path("ca.pem")}, milliseconds(700)),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("connect without it")));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5));
}

TEST_F(CredentialsTest, WhatCannotBeUsedIsNamed) {
  using Code = absl::StatusCode;
  const std::string ca = folder_.Path("ca.pem");
  const std::string cert = folder_.Path("client.pem");
  const std::string key = folder_.Path("client.key");
  const std::string garbage =
      folder_.Write("garbage", "-----BEGIN CERTIFICATE-----\nxxxx\n-----END CERTIFICATE-----\n");
  const std::string readable = folder_.Write("readable.key", *ReadSmallFile(key), 0644);
  const std::string damaged = folder_.Write("damaged.pem", *ReadSmallFile(cert) + *ReadSmallFile(garbage));
  const auto expect = [&](const ClientSecurity& security, Code code, const std::string& what) {
    EXPECT_THAT(TryCall("127.0.0.1:1", security), StatusIs(code, HasSubstr(what)));
  };
  expect({.certificate = cert, .key = key}, Code::kInvalidArgument, "authority");
  expect({.server_name = "x"}, Code::kInvalidArgument, "authority");
  expect({.ca = folder_.Path("none")}, Code::kNotFound, "none");
  expect({.ca = garbage}, Code::kInvalidArgument, "garbage");
  expect({.ca = key}, Code::kInvalidArgument, "no certificate");
  expect({.ca = ca, .certificate = cert}, Code::kInvalidArgument, "only the certificate");
  expect({.ca = ca, .key = key}, Code::kInvalidArgument, "only the key");
  expect({.ca = ca, .certificate = cert, .key = folder_.Path("server.key")}, Code::kInvalidArgument, "does not belong");
  expect({.ca = ca, .certificate = cert, .key = readable}, Code::kPermissionDenied, "chmod 600");
  expect({.ca = ca, .certificate = damaged, .key = key}, Code::kInvalidArgument, "damaged");
  EXPECT_THAT(MakeServerCredentials({.key = key}, nullptr), StatusIs(Code::kInvalidArgument));
  EXPECT_THAT(MakeServerCredentials({.client_ca = ca}, nullptr), StatusIs(Code::kInvalidArgument));
  EXPECT_THAT(MakeServerCredentials({.certificate = cert}, nullptr), StatusIs(Code::kInvalidArgument));
}

TEST_F(CredentialsTest, AServersCertificateIsReplacedWhileItRuns) {
  Reports reports;
  const auto server = Serve(ServerFiles(), reports.Reporter());
  ASSERT_OK(TryCall(server->address(), {.ca = folder_.Path("ca.pem")}));

  // Half of a replacement: the key does not fit, and the old pair stays.
  const CertificateAuthority successor = MakeAuthority();
  const auto issued = successor.Issue(Localhost());
  ASSERT_OK(issued);
  folder_.Write("server.pem", issued->certificate);
  EXPECT_THAT(reports.Next(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("does not belong")));
  EXPECT_OK(TryCall(server->address(), {.ca = folder_.Path("ca.pem")}));

  folder_.Write("server.key", issued->key);
  EXPECT_OK(reports.Next());
  const std::string successor_ca = folder_.Write("successor.pem", successor.certificate());
  EXPECT_OK(TryCall(server->address(), {.ca = successor_ca}, milliseconds(15000)));
  EXPECT_THAT(TryCall(server->address(), {.ca = folder_.Path("ca.pem")}, milliseconds(500)),
              StatusIs(absl::StatusCode::kUnavailable));

  // What is gone, or is garbage, changes nothing.
  folder_.Write("server.pem", "garbage");
  EXPECT_THAT(reports.Next(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("server.pem")));
  ASSERT_EQ(unlink(folder_.Path("server.key").c_str()), 0);
  EXPECT_THAT(reports.Next(), StatusIs(absl::StatusCode::kNotFound, HasSubstr("server.key")));
  EXPECT_OK(TryCall(server->address(), {.ca = successor_ca}));
}

TEST_F(CredentialsTest, AChannelFollowsItsFiles) {
  auto server = Serve(ServerFiles());
  Reports reports;
  ChannelOptions options{.address = server->address()};
  options.security.ca = folder_.Path("ca.pem");
  options.on_reload = reports.Reporter();
  auto channel = Connect(options);
  ASSERT_OK(channel);
  folder_.Write("ca.pem", "garbage");
  EXPECT_THAT(reports.Next(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("ca.pem")));
  EXPECT_OK(Ask(**channel));
}

TEST_F(CredentialsTest, EveryCallCarriesTheTokenOfTheMoment) {
  const std::string token = folder_.Write("token", absl::StrCat(kToken, "\n"));
  for (const bool tls : {false, true}) {
    const auto server = Serve(tls ? ServerFiles() : ServerSecurity{});
    for (const char* host : {"127.0.0.1", "localhost"}) {
      ChannelOptions options{.address = server->address(host)};
      if (tls) options.security.ca = folder_.Path("ca.pem");
      options.security.token_file = token;
      auto channel = Connect(options);
      ASSERT_OK(channel);
      EXPECT_OK(Ask(**channel));
      EXPECT_EQ(server->service.authorization(), absl::StrCat("Bearer ", kToken));
      folder_.Write("token", "another-token-of-the-next-hour");
      EXPECT_OK(Ask(**channel));
      EXPECT_EQ(server->service.authorization(), "Bearer another-token-of-the-next-hour");
      folder_.Write("token", "short");
      EXPECT_OK(Ask(**channel));
      EXPECT_EQ(server->service.authorization(), "Bearer another-token-of-the-next-hour");
      folder_.Write("token", kToken);
      EXPECT_OK(Ask(**channel));
      EXPECT_EQ(server->service.authorization(), absl::StrCat("Bearer ", kToken));
    }
  }
}

TEST_F(CredentialsTest, ATokenIsNotSentInPlainTextBeyondThisHost) {
  const std::string token = folder_.Write("token", kToken);
  for (const char* address : {"10.1.2.3:1", "example.org:1", "localhost.evil:1", "127.evil.com:1", "0.0.0.0:1"}) {
    EXPECT_THAT(TryCall(address, {.token_file = token}),
                StatusIs(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr("never sent"), HasSubstr(address))));
  }
}

TEST_F(CredentialsTest, ATokenFileHoldsOneTokenAndIsClosedToOthers) {
  for (const std::string& bad :
       {std::string(), std::string("fifteen-letters"), std::string("two tokens in a line, with spaces"),
        std::string("a-token-and\nanother-one-below"), std::string("0123456789abcdef\0x", 18),
        std::string("0123456789abcdefg\x7f"), std::string(5000, 'x')}) {
    const auto status = TryCall("127.0.0.1:1", {.token_file = folder_.Write("token", bad)});
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("one token of 16 to 4096")));
    if (bad.empty()) continue;
    EXPECT_THAT(std::string(status.message()), Not(HasSubstr(bad.substr(0, 8)))) << "the secret is in the error";
  }
  const auto readable = TryCall("127.0.0.1:1", {.token_file = folder_.Write("token", kToken, 0644)});
  EXPECT_THAT(readable, StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("chmod 600")));
  EXPECT_THAT(std::string(readable.message()), Not(HasSubstr(kToken)));
}

// gRPC's threads go on while a process ends, and may be amid a handshake: exit() must not take OpenSSL away from them.
TEST(OpenSslDeathTest, ExitDoesNotCleanItUp) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        const bool started = StartGrpc().ok();
        OPENSSL_init_crypto(0, nullptr);  // as its first user does
        OPENSSL_atexit([] { _exit(2); });
        std::exit(started ? 0 : 1);
      },
      ::testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace refit
