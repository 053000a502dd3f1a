// Who may connect, and who may do what: real services over TLS and plain text, and both programs.
#include <gmock/gmock.h>
#include <google/protobuf/descriptor.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/certificates/certificate_authority.h"
#include "common/certificates/certificate_folder.h"
#include "common/net/byte_buffer.h"
#include "common/net/channel.h"
#include "common/net/raw_reader.h"
#include "refit/inspector.h"
#include "refit/publisher.h"
#include "refit/server.h"
#include "refit/subscriber.h"
#include "refit/v1/inspect.grpc.pb.h"
#include "refit/v1/pull.pb.h"
#include "refit/v1/push.pb.h"
#include "refit/v1/relay.pb.h"
#include "server/access/authorizer.h"
#include "tests/integration/subprocess.h"
#include "tests/support/files.h"
#include "tests/support/push.h"
#include "tests/support/status_matchers.h"

namespace refit {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

const std::string kTrainerToken = "trainer-token-0123456789abcdef";
const std::string kWorkerToken = "worker-token-0123456789abcdef";
const std::string kViewerToken = "viewer-token-0123456789abcdef";

// What each call needs: a call that is missing here fails the tests.
const std::map<std::string, Role> kNeeds = {
    {"/refit.v1.PushService/Push", Role::kTrainer},
    {"/refit.v1.PushService/AbortVersion", Role::kTrainer},
    {"/refit.v1.PushService/ReleaseInstalls", Role::kTrainer},
    {"/refit.v1.PushService/AwaitWorkers", Role::kTrainer},
    {"/refit.v1.PullService/WatchVersions", Role::kWorker},
    {"/refit.v1.PullService/GetManifest", Role::kWorker},
    {"/refit.v1.PullService/Pull", Role::kWorker},
    {"/refit.v1.PullService/EndLease", Role::kWorker},
    {"/refit.v1.PullService/ReportWorker", Role::kWorker},
    {"/refit.v1.RelayService/Attend", Role::kRelay},
    {"/refit.v1.RelayService/ReportBelow", Role::kRelay},
    {"/refit.v1.InspectService/GetServerInfo", Role::kViewer},
    {"/refit.v1.InspectService/ListVersions", Role::kViewer},
    {"/refit.v1.InspectService/ListWorkers", Role::kViewer},
    {"/refit.v1.InspectService/DescribeVersion", Role::kViewer},
    {"/refit.v1.InspectService/DescribeTensor", Role::kViewer},
};

// Of the four services, as their descriptors have them.
std::vector<std::string> AllMethods() {
  std::vector<std::string> methods;
  for (const google::protobuf::FileDescriptor* file :
       {v1::PushRequest::descriptor()->file(), v1::PullRequest::descriptor()->file(),
        v1::AttendRequest::descriptor()->file(), v1::GetServerInfoRequest::descriptor()->file()}) {
    for (int i = 0; i < file->service_count(); ++i) {
      const google::protobuf::ServiceDescriptor* service = file->service(i);
      for (int j = 0; j < service->method_count(); ++j) {
        methods.push_back(absl::StrCat("/", service->full_name(), "/", service->method(j)->name()));
      }
    }
  }
  return methods;
}

// Calls with a request that is empty but for the model. OK if the call was let in, whatever became of it then.
absl::Status Enter(const std::shared_ptr<grpc::Channel>& channel, const std::string& method) {
  v1::WatchVersionsRequest request;
  if (absl::EndsWith(method, "WatchVersions")) request.set_model("default");
  const auto call = RawReader::Start(channel, method, Serialize(request), seconds(10));
  const auto answer = call->Read(seconds(10));
  if (answer.ok() && answer->has_value()) return absl::OkStatus();
  const absl::Status status = call->Finish(seconds(10));
  const bool refused = absl::IsUnauthenticated(status) || absl::IsPermissionDenied(status);
  return refused || absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) ? status : absl::OkStatus();
}

std::unique_ptr<RefitServer> Start(ServerOptions options) {
  options.listen = "127.0.0.1:0";
  auto server = RefitServer::Start(options);
  EXPECT_OK(server);
  return server.ok() ? *std::move(server) : nullptr;
}

absl::StatusOr<VersionSummary> PushBytes(const ChannelOptions& channel, uint64_t version,
                                         const std::vector<TensorSpec>& specs,
                                         const std::vector<std::vector<std::byte>>& values) {
  return PushIdentity(channel, version, specs, [&](size_t i) { return values[i]; });
}

absl::StatusOr<VersionSummary> PushSmall(const ChannelOptions& channel, uint64_t version) {
  return PushBytes(channel, version, {{"t", DType::kU8, {3}}}, {{std::byte{1}, std::byte{2}, std::byte{3}}});
}

class SecurityTest : public ::testing::Test {
 protected:
  SecurityTest() { EXPECT_OK(MakeCertificateFolder(certificates_, {})); }

  std::string Certificate(const std::string& name) const { return certificates_ + "/" + name; }
  ServerOptions MutualTls() const {
    ServerOptions options;
    options.security = {
        .certificate = Certificate("server.pem"), .key = Certificate("server.key"), .client_ca = Certificate("ca.pem")};
    options.authorization.roles = Certificate("roles");
    return options;
  }
  std::string WriteTokens() const {
    return folder_.Write("tokens", absl::StrCat("# who may do what\n\ntrainer ", kTrainerToken, "\n  worker\t",
                                                kWorkerToken, "  \nviewer ", kViewerToken, "\r\n"));
  }
  ServerOptions Tokens() const {
    ServerOptions options;
    options.authorization.tokens = WriteTokens();
    return options;
  }
  ClientSecurity As(const std::string& role) const {
    return {.ca = Certificate("ca.pem"), .certificate = Certificate(role + ".pem"), .key = Certificate(role + ".key")};
  }
  ClientSecurity With(const std::string& token) const {
    return {.token_file = folder_.Write(absl::StrCat("token-", std::hash<std::string>()(token)), token)};
  }
  static ChannelOptions To(const RefitServer& server, const ClientSecurity& security) {
    ChannelOptions options{.address = server.address()};
    options.security = security;
    return options;
  }

  // Every call, as a peer that has `role`, or none.
  static void ExpectCalls(const RefitServer& server, const ClientSecurity& security, std::optional<Role> role) {
    const auto channel = Connect(To(server, security));
    ASSERT_OK(channel);
    for (const std::string& method : AllMethods()) {
      const auto needs = kNeeds.find(method);
      ASSERT_NE(needs, kNeeds.end()) << method << " is new: which role does it need?";
      const absl::Status status = Enter(*channel, method);
      if (!role.has_value()) {
        EXPECT_THAT(status, StatusIs(absl::StatusCode::kUnauthenticated)) << method;
      } else if (*role >= needs->second) {
        EXPECT_OK(status) << method;
      } else {
        EXPECT_THAT(status, StatusIs(absl::StatusCode::kPermissionDenied,
                                     AllOf(HasSubstr(absl::StrCat("needs the role ", RoleName(needs->second))),
                                           HasSubstr(absl::StrCat("has the role ", RoleName(*role))))))
            << method;
      }
      EXPECT_THAT(std::string(status.message()), Not(HasSubstr("token-0123"))) << "the secret is in the error";
    }
  }

  const ScratchFolder folder_;
  const std::string certificates_ = folder_.Path("certificates");
};

TEST_F(SecurityTest, TheTableNamesNoCallThatIsNotThere) { EXPECT_EQ(AllMethods().size(), kNeeds.size()); }

TEST_F(SecurityTest, EveryCallWantsTheRoleOfItsToken) {
  const auto server = Start(Tokens());
  ASSERT_OK(PushSmall(To(*server, With(kTrainerToken)), 1));
  ExpectCalls(*server, With(kTrainerToken), Role::kTrainer);
  ExpectCalls(*server, With(kWorkerToken), Role::kWorker);
  ExpectCalls(*server, With(kViewerToken), Role::kViewer);
  ExpectCalls(*server, {}, std::nullopt);
  ExpectCalls(*server, With(kTrainerToken + "x"), std::nullopt);
  ExpectCalls(*server, With(kTrainerToken.substr(0, kTrainerToken.size() - 1)), std::nullopt);
}

TEST_F(SecurityTest, EveryCallWantsTheRoleOfItsCertificate) {
  const auto server = Start(MutualTls());
  ASSERT_OK(PushSmall(To(*server, As("trainer")), 1));
  ExpectCalls(*server, As("trainer"), Role::kTrainer);
  ExpectCalls(*server, As("worker"), Role::kWorker);
  ExpectCalls(*server, As("viewer"), Role::kViewer);
}

TEST_F(SecurityTest, ACertificateWithoutRoleMayDoNothing) {
  ServerOptions options = MutualTls();
  options.authorization.roles = folder_.Write("roles", "trainer trainer\n");
  const auto server = Start(options);
  ExpectCalls(*server, As("worker"), std::nullopt);
  auto inspector = Inspector::Connect(To(*server, As("worker")));
  ASSERT_OK(inspector);
  EXPECT_THAT((*inspector)->ServerInfo(),
              StatusIs(absl::StatusCode::kUnauthenticated, HasSubstr("certificate of 'worker' has no role")));
}

TEST_F(SecurityTest, ATokenCountsRatherThanTheCertificate) {
  ServerOptions options = MutualTls();
  options.authorization.tokens = WriteTokens();
  const auto server = Start(options);
  ASSERT_OK(PushSmall(To(*server, As("trainer")), 1));
  const auto both = [&](const std::string& role, const std::string& token) {
    ClientSecurity security = As(role);
    security.token_file = With(token).token_file;
    return security;
  };
  ExpectCalls(*server, both("viewer", kTrainerToken), Role::kTrainer);
  ExpectCalls(*server, both("trainer", kViewerToken), Role::kViewer);
  ExpectCalls(*server, both("trainer", "no-token-0123456789abcdef"), std::nullopt);
  ExpectCalls(*server, As("worker"), Role::kWorker);
}

TEST_F(SecurityTest, AnyNameOfACertificateMayHaveTheRole) {
  auto authority = CertificateAuthority::Create("another", std::chrono::hours(1));
  ASSERT_OK(authority);
  auto issued = authority->Issue({.common_name = "pod 17", .hosts = {"rollout.example.org", "10.0.0.7"}});
  ASSERT_OK(issued);
  const ClientSecurity client{.ca = Certificate("ca.pem"),
                              .certificate = folder_.Write("pod.pem", issued->certificate),
                              .key = folder_.Write("pod.key", issued->key)};
  ServerOptions options = MutualTls();
  options.security.client_ca = folder_.Write("clients.pem", authority->certificate());
  for (const char* name : {"pod 17", "rollout.example.org", "10.0.0.7"}) {
    options.authorization.roles = folder_.Write("roles", absl::StrCat("worker ", name, "\n"));
    const auto server = Start(options);
    auto inspector = Inspector::Connect(To(*server, client));
    ASSERT_OK(inspector);
    EXPECT_OK((*inspector)->ServerInfo()) << name;
  }
  options.authorization.roles = folder_.Write("roles", "worker pod\nworker 17\nworker example.org\nworker rollout\n");
  ExpectCalls(*Start(options), client, std::nullopt);
}

TEST_F(SecurityTest, WithoutRolesEveryoneMayDoEverything) {
  const auto plain = Start({});
  ASSERT_OK(PushSmall(To(*plain, {}), 1));
  ExpectCalls(*plain, {}, Role::kTrainer);
  ExpectCalls(*plain, With("a-token-that-nobody-asks-for"), Role::kTrainer);
  ServerOptions options = MutualTls();
  options.authorization = {};
  const auto mutual = Start(options);
  ASSERT_OK(PushSmall(To(*mutual, As("viewer")), 1));
  ExpectCalls(*mutual, As("viewer"), Role::kTrainer);
}

TEST_F(SecurityTest, OddAuthorizationsAreNoTokens) {
  const auto server = Start(Tokens());
  const auto channel = Connect(To(*server, {}));
  ASSERT_OK(channel);
  const auto ask = [&](const std::vector<std::string>& values) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + seconds(10));
    for (const std::string& value : values) context.AddMetadata("authorization", value);
    v1::GetServerInfoResponse response;
    return v1::InspectService::NewStub(*channel)->GetServerInfo(&context, {}, &response).error_code();
  };
  EXPECT_EQ(ask({"Bearer " + kViewerToken}), grpc::StatusCode::OK);
  EXPECT_EQ(ask({"bearer " + kViewerToken}), grpc::StatusCode::OK);
  for (const std::vector<std::string>& odd : {std::vector<std::string>{""},
                                              {"Bearer"},
                                              {"Bearer "},
                                              {kViewerToken},
                                              {"Basic " + kViewerToken},
                                              {"Bearer " + kViewerToken + " "},
                                              {"Bearer " + kViewerToken, "Bearer " + kViewerToken},
                                              {"Bearer viewer " + kViewerToken},
                                              {"Bearer " + std::string(8000, 'x')}}) {
    EXPECT_EQ(ask(odd), grpc::StatusCode::UNAUTHENTICATED) << odd.front();
  }
}

TEST_F(SecurityTest, TokensAndRolesAreReadAgain) {
  const auto server = Start(Tokens());
  auto inspector = Inspector::Connect(To(*server, With(kViewerToken)));
  ASSERT_OK(inspector);
  EXPECT_OK((*inspector)->ServerInfo());
  folder_.Write("tokens", "viewer another-token-0123456789\n");
  EXPECT_THAT((*inspector)->ServerInfo(), StatusIs(absl::StatusCode::kUnauthenticated, HasSubstr("none that this")));
  // What cannot be used changes nothing.
  for (const char* bad : {"", "viewer short\n", "captain another-token-0123456789\n"}) {
    folder_.Write("tokens", bad);
    EXPECT_THAT((*inspector)->ServerInfo(), StatusIs(absl::StatusCode::kUnauthenticated));
  }
  folder_.Write("tokens", absl::StrCat("viewer ", kViewerToken), 0644);
  EXPECT_THAT((*inspector)->ServerInfo(), StatusIs(absl::StatusCode::kUnauthenticated)) << "open to others";
  folder_.Write("tokens", absl::StrCat("viewer ", kViewerToken));
  EXPECT_OK((*inspector)->ServerInfo());

  ServerOptions options = MutualTls();
  options.authorization.roles = folder_.Write("roles", "viewer worker\n");
  const auto mutual = Start(options);
  auto subscriber = Subscriber::Connect(To(*mutual, As("worker")));
  ASSERT_OK(subscriber);
  EXPECT_THAT((*subscriber)->Pull({}), StatusIs(absl::StatusCode::kPermissionDenied));
  folder_.Write("roles", "worker worker\n");
  EXPECT_THAT((*subscriber)->Pull({}), StatusIs(absl::StatusCode::kNotFound)) << "the same connection";
}

TEST_F(SecurityTest, FilesThatCannotBeUsedAreNamedButNotShown) {
  const auto expect = [&](const std::string& contents, const std::string& what, mode_t mode = 0600) {
    ServerOptions options;
    options.listen = "127.0.0.1:0";
    options.authorization.tokens = folder_.Write("tokens", contents, mode);
    const auto server = RefitServer::Start(options);
    ASSERT_FALSE(server.ok()) << contents;
    const std::string message(server.status().message());
    EXPECT_THAT(message, AllOf(HasSubstr("tokens"), HasSubstr(what)));
    EXPECT_THAT(message, Not(HasSubstr("token-0123"))) << "the secret is in the error";
  };
  expect("", "nobody");
  expect("# nothing\n", "nobody");
  expect(kTrainerToken, "line 1: expected a role");
  expect(absl::StrCat(kTrainerToken, " trainer"), "line 1: expected a role");
  expect(absl::StrCat("worker ", kWorkerToken, "\n\nworker\n"), "line 3: expected a role");
  expect(absl::StrCat("Trainer ", kTrainerToken), "line 1: expected a role");
  expect("trainer too-short", "line 1: expected one token of 16");
  expect(absl::StrCat("trainer ", kTrainerToken, " and more"), "line 1: expected one token");
  expect(absl::StrCat("trainer ", kTrainerToken, "\nviewer ", kTrainerToken), "line 2: a line above");
  expect(absl::StrCat("trainer ", kTrainerToken), "chmod 600", 0644);
  ServerOptions options;
  options.authorization.roles = Certificate("roles");
  EXPECT_THAT(RefitServer::Start(options), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--tls-client-ca")));
}

TEST_F(SecurityTest, PlainTextIsOnlyForLoopback) {
  for (const char* listen : {"0.0.0.0:0", "[::]:0", "localhost.evil:0", "127.evil.com:0", "10.0.0.1:0", "*:0"}) {
    ServerOptions options;
    options.listen = listen;
    EXPECT_THAT(RefitServer::Start(options),
                StatusIs(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr("--allow-plaintext"), HasSubstr(listen))));
    // A token is no protection from those who listen in.
    options.authorization.tokens = WriteTokens();
    EXPECT_THAT(RefitServer::Start(options), StatusIs(absl::StatusCode::kInvalidArgument)) << listen;
  }
  for (const std::string& listen :
       {std::string("127.0.0.1:0"), std::string("localhost:0"), absl::StrCat("unix:", folder_.Path("socket"))}) {
    ServerOptions options;
    options.listen = listen;
    EXPECT_OK(RefitServer::Start(options)) << listen;
  }
  ServerOptions everywhere = MutualTls();
  everywhere.listen = "0.0.0.0:0";
  auto server = RefitServer::Start(everywhere);
  ASSERT_OK(server);
  ChannelOptions options{.address = absl::StrCat("localhost:", (*server)->port())};
  options.security = As("trainer");
  EXPECT_OK(PushSmall(options, 1));
  ServerOptions told;
  told.listen = "0.0.0.0:0";
  told.allow_plaintext = true;
  EXPECT_OK(RefitServer::Start(told));
}

TEST_F(SecurityTest, TokensWorkOverAUnixSocket) {
  ServerOptions options = Tokens();
  options.listen = absl::StrCat("unix:", folder_.Path("socket"));
  auto server = RefitServer::Start(options);
  ASSERT_OK(server);
  EXPECT_OK(PushSmall(To(**server, With(kTrainerToken)), 1));
  EXPECT_THAT(PushSmall(To(**server, With(kWorkerToken)), 2), StatusIs(absl::StatusCode::kPermissionDenied));
}

std::vector<std::byte> Noise(size_t size, uint64_t seed) {
  std::vector<std::byte> bytes(size);
  for (std::byte& byte : bytes) {
    seed = seed * 6364136223846793005U + 1442695040888963407U;
    byte = static_cast<std::byte>(seed >> 56);
  }
  return bytes;
}

// Several chunks, one, less than one, and nothing.
TEST_F(SecurityTest, WhatIsPushedOverMutualTlsIsPulledBitForBit) {
  const auto server = Start(MutualTls());
  const std::vector<TensorSpec> specs = {{"large", DType::kU8, {7'000'001}},
                                         {"chunk", DType::kBF16, {1 << 20}},
                                         {"small", DType::kF32, {5, 3}},
                                         {"empty", DType::kF32, {0, 4}}};
  std::vector<std::vector<std::byte>> values;
  for (size_t i = 0; i < specs.size(); ++i) values.push_back(Noise(specs[i].ByteSize(), i + 1));
  for (const Transport transport : {Transport::kWire, Transport::kAuto}) {
    ChannelOptions as_trainer = To(*server, As("trainer"));
    ChannelOptions as_worker = To(*server, As("worker"));
    as_trainer.transport = as_worker.transport = transport;
    const uint64_t version = transport == Transport::kWire ? 1 : 2;
    ASSERT_OK(PushBytes(as_trainer, version, specs, values));
    auto subscriber = Subscriber::Connect(as_worker);
    ASSERT_OK(subscriber);
    auto pulled = (*subscriber)->Pull({});
    ASSERT_OK(pulled);
    EXPECT_EQ(pulled->result.version.version, version);
    ASSERT_EQ(pulled->tensors.size(), specs.size());
    for (size_t i = 0; i < specs.size(); ++i) {
      const PulledTensor& tensor = pulled->tensors[i];
      EXPECT_EQ(tensor.part.tensor.name, specs[i].name);
      ASSERT_EQ(tensor.part.ByteSize(), values[i].size());
      EXPECT_TRUE(std::equal(values[i].begin(), values[i].end(), tensor.data->data())) << specs[i].name;
    }
  }
}

// The bytes of the first answer to a request's bytes; empty if there is none.
std::string Ask(const std::shared_ptr<grpc::Channel>& channel, const char* method, const std::string& request) {
  const grpc::Slice slice(request);
  const auto call = RawReader::Start(channel, method, grpc::ByteBuffer(&slice, 1), seconds(10));
  const auto answer = call->Read(seconds(10));
  EXPECT_OK(answer);
  grpc::Slice text;
  if (!answer.ok() || !answer->has_value()) return "";
  EXPECT_TRUE((*answer)->DumpToSingleSlice(&text).ok());
  return std::string(reinterpret_cast<const char*>(text.begin()), text.size());
}

TEST_F(SecurityTest, ReflectionAndHealthAnswerUnderTls) {
  const auto server = Start(MutualTls());
  const auto channel = Connect(To(*server, As("viewer")));
  ASSERT_OK(channel);
  const auto ask = [&](const char* method, const std::string& request) { return Ask(*channel, method, request); };
  // list_services, and the status SERVING.
  EXPECT_THAT(ask("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", std::string("\x3a\x00", 2)),
              HasSubstr("refit.v1.PushService"));
  // file_containing_symbol
  EXPECT_THAT(ask("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "\x22\x15grpc.health.v1.Health"),
              HasSubstr("HealthCheckRequest"));
  EXPECT_EQ(ask("/grpc.health.v1.Health/Check", "\x0a\x14refit.v1.PullService"), "\x08\x01");
}

TEST_F(SecurityTest, HealthAnswersInPlainTextWhereItIsToldTo) {
  ServerOptions options = MutualTls();
  options.health = "127.0.0.1:0";
  const auto server = Start(options);
  const auto channel = Connect({.address = server->health_address()});
  ASSERT_OK(channel);
  for (const char* request : {"", "\x0a\x14refit.v1.PullService"}) {
    EXPECT_EQ(Ask(*channel, "/grpc.health.v1.Health/Check", request), "\x08\x01");
  }
  const auto pull = RawReader::Start(*channel, "/refit.v1.PullService/Pull", grpc::ByteBuffer(), seconds(10));
  EXPECT_EQ(pull->Finish(seconds(10)).code(), absl::StatusCode::kUnimplemented) << "health, and nothing else";
  server->Shutdown(milliseconds(0));
  EXPECT_EQ(Ask(*channel, "/grpc.health.v1.Health/Check", ""), "\x08\x02") << "NOT_SERVING";
}

TEST_F(SecurityTest, WhereHealthCannotBeAnsweredIsSaid) {
  ServerOptions options = MutualTls();
  const auto server = Start(options);
  for (const auto& [address, why] : {std::pair<std::string, const char*>{"127.0.0.1:99999", "port 99999"},
                                     {"50052", "names no port"},
                                     {server->address(), "is the address right and the port free"}}) {
    options.health = address;
    EXPECT_THAT(RefitServer::Start(options).status().message(), AllOf(HasSubstr("health"), HasSubstr(why)));
  }
}

// The programs.

class ProgramSecurityTest : public SecurityTest {
 protected:
  void Serve(std::vector<std::string> arguments) {
    const std::string port_file = folder_.Path("port");
    arguments.insert(arguments.end(), {"--listen", "127.0.0.1:0", "--port-file", port_file});
    server_ = Subprocess::Start("refit-server", arguments);
    const auto deadline = std::chrono::steady_clock::now() + seconds(30);
    std::string port;
    while (port.empty() || port.back() != '\n') {
      ASSERT_TRUE(server_->IsRunning() && std::chrono::steady_clock::now() < deadline) << server_->Err();
      port = ReadFile(port_file);
      std::this_thread::yield();
    }
    port.pop_back();
    address_ = "localhost:" + port;
  }
  void ServeMutualTls() {
    Serve({"--tls-cert", Certificate("server.pem"), "--tls-key", Certificate("server.key"), "--tls-client-ca",
           Certificate("ca.pem"), "--roles", Certificate("roles")});
  }
  Outcome Run(std::vector<std::string> arguments, const std::string& role = "") const {
    arguments.insert(arguments.end(), {"--server", address_, "--connect-timeout", "2"});
    if (!role.empty()) {
      arguments.insert(arguments.end(), {"--tls-ca", Certificate("ca.pem"), "--tls-cert", Certificate(role + ".pem"),
                                         "--tls-key", Certificate(role + ".key")});
    }
    return Refit(arguments);
  }

  // Everything in the test's folder and in the one that programs run in.
  std::vector<std::string> Listing() const {
    std::vector<std::string> paths;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder_.path()))
      paths.push_back(entry.path());
    for (const auto& entry : std::filesystem::directory_iterator(".")) paths.push_back(entry.path());
    std::sort(paths.begin(), paths.end());
    return paths;
  }

  std::unique_ptr<Subprocess> server_;
  std::string address_;
};

TEST_F(ProgramSecurityTest, TheCommandLineSpeaksMutualTls) {
  ServeMutualTls();
  const std::vector<std::string> push = {"push", "--version", "1", "--synthetic", "gemma4_tiny"};
  EXPECT_EQ(Run(push, "trainer").code, 0);
  EXPECT_EQ(Run({"pull"}, "worker").code, 0);
  EXPECT_EQ(Run({"status"}, "viewer").code, 0);
  const Outcome refused = Run({"push", "--version", "2", "--synthetic", "gemma4_tiny"}, "worker");
  EXPECT_EQ(refused.code, 1);
  EXPECT_THAT(refused.err, AllOf(HasSubstr("needs the role trainer"), HasSubstr("'worker' has the role worker")));
  const Outcome plain = Run({"status"});
  EXPECT_EQ(plain.code, 4);
  EXPECT_THAT(plain.err, HasSubstr("without TLS?"));
}

TEST_F(ProgramSecurityTest, TheEnvironmentNamesTheFiles) {
  ServeMutualTls();
  const std::map<std::string, std::string> variables = {{"REFIT_SERVER", "127.0.0.1" + address_.substr(9)},
                                                        {"REFIT_TLS_CA", Certificate("ca.pem")},
                                                        {"REFIT_TLS_CERT", Certificate("viewer.pem")},
                                                        {"REFIT_TLS_KEY", Certificate("viewer.key")},
                                                        {"REFIT_TLS_SERVER_NAME", "localhost"}};
  for (const auto& [name, value] : variables) setenv(name.c_str(), value.c_str(), 1);
  const Outcome status = Refit({"status"});
  for (const auto& [name, value] : variables) unsetenv(name.c_str());
  EXPECT_EQ(status.code, 0) << status.err;
}

TEST_F(ProgramSecurityTest, SecretsAreInNoOutput) {
  Serve({"--tokens", WriteTokens(), "--log-level", "debug"});
  const std::string wrong = "wrong-token-0123456789abcdef";
  std::string said;
  for (const std::string& token : {kViewerToken, kWorkerToken, wrong}) {
    setenv("REFIT_TOKEN_FILE", With(token).token_file.c_str(), 1);
    for (const char* command : {"status", "versions", "pull"}) {
      for (const std::vector<std::string>& arguments :
           {std::vector<std::string>{command}, {command, "--json"}, {command, "--help"}}) {
        const Outcome outcome = Run(arguments);
        absl::StrAppend(&said, outcome.out, outcome.err);
      }
    }
    unsetenv("REFIT_TOKEN_FILE");
  }
  folder_.Write("tokens", kTrainerToken);
  said += Run({"status", "--token-file", With(kViewerToken).token_file}).err;
  server_->Signal(SIGTERM);
  const std::string logged = server_->Wait().err;
  EXPECT_THAT(logged,
              AllOf(HasSubstr("call refused"), HasSubstr("needs the role worker"), HasSubstr("the old contents stay")));
  absl::StrAppend(&said, logged, Subprocess::Start("refit-server", {"--help"})->Wait().out);
  EXPECT_THAT(said, HasSubstr("needs the role worker"));
  for (const std::string& token : {kTrainerToken, kWorkerToken, kViewerToken, wrong}) {
    EXPECT_EQ(said.find(token), std::string::npos) << token << " in " << said;
  }
}

TEST_F(ProgramSecurityTest, NamesFromTheWireStayText) {
  Serve({"--grace", "0"});
  const std::string trick = std::string("../../../evil\n2026-01-01 info forged\r\x1b[2J\x1b]0;title\x07/etc/passwd") +
                            std::string("\0\xc2\x9b", 3);
  ChannelOptions channel{.address = address_};
  auto publisher = Publisher::Connect(channel);
  ASSERT_OK(publisher);
  const std::vector<std::string> before = Listing();
  const std::vector<std::byte> bytes(2);
  for (const std::string& model : {std::string("default"), trick}) {
    PublishOptions options;
    options.model = model;
    options.version = 1;
    options.adapter = "identity";
    options.publisher = trick;
    EXPECT_THAT((*publisher)->Open(options, {{"../../" + trick, DType::kU8, {2}}}),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("control character")));
    const std::vector<TensorSpec> specs = {{"../../../../tmp/evil", DType::kU8, {2}}, {"/etc/shadow", DType::kU8, {2}}};
    auto push = (*publisher)->Open(options, specs);
    ASSERT_OK(push);
    for (size_t i = 0; i < specs.size(); ++i) ASSERT_OK((*push)->Append(i, bytes));
    ASSERT_OK((*push)->Commit());
  }
  PullOptions pull;
  pull.worker = trick;
  pull.model = trick;
  auto subscriber = Subscriber::Connect(channel);
  ASSERT_OK(subscriber);
  EXPECT_OK((*subscriber)->Pull(pull));
  (void)(*publisher)->Abort(trick, 7, trick);
  const std::string out = folder_.Path("out.safetensors");
  std::string said;
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"status"}, {"versions"}, {"describe", "latest"}, {"pull", "--out", out}}) {
    const Outcome outcome = Run(arguments);
    absl::StrAppend(&said, outcome.out, outcome.err);
  }
  server_->Signal(SIGTERM);
  const std::string logged = server_->Wait().err;
  for (const std::string& text : {said, logged}) {
    EXPECT_TRUE(std::all_of(text.begin(), text.end(), [](unsigned char c) {
      return c == '\n' || (c >= ' ' && c != 0x7f);
    })) << absl::CEscape(text);
    EXPECT_THAT(text, Not(HasSubstr("\n2026-01-01 info forged"))) << "a line of its own";
  }
  // The pull's own file at most: no name from the wire became a path.
  std::vector<std::string> after = Listing();
  after.erase(std::remove(after.begin(), after.end(), out), after.end());
  EXPECT_EQ(after, before);
  EXPECT_FALSE(std::filesystem::exists(std::filesystem::path(folder_.path()).parent_path() / "evil"));
}

TEST_F(ProgramSecurityTest, CertsLeavesWhatTheReadmeTells) {
  const std::string dir = folder_.Path("new");
  const Outcome made = Refit({"certs", dir, "--host", "trainer-0.example.org", "--host", "10.0.0.7"});
  ASSERT_EQ(made.code, 0) << made.err;
  EXPECT_THAT(made.out, AllOf(HasSubstr("refit-server"), HasSubstr("--tls-client-ca"), HasSubstr("refit status")));
  EXPECT_EQ(std::filesystem::status(dir).permissions(), std::filesystem::perms::owner_all);
  for (const char* name : {"server", "trainer", "relay", "worker", "viewer"}) {
    const std::string key = absl::StrCat(dir, "/", name, ".key");
    EXPECT_EQ(std::filesystem::status(key).permissions(),
              std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
    EXPECT_THAT(ReadFile(key), HasSubstr("PRIVATE KEY"));
  }
  EXPECT_FALSE(std::filesystem::exists(dir + "/ca.key"));

  const std::string before = ReadFile(dir + "/ca.pem");
  std::filesystem::remove(dir + "/server.pem");
  const Outcome again = Refit({"certs", dir});
  EXPECT_EQ(again.code, 1);
  EXPECT_THAT(again.err, HasSubstr("not overwritten"));
  EXPECT_EQ(ReadFile(dir + "/ca.pem"), before);
  EXPECT_FALSE(std::filesystem::exists(dir + "/server.pem")) << "nothing was to be written";

  for (const char* host : {"a b", "x,DNS:evil", "-x", "", "a\nb", "1.2.3.4.5/24"}) {
    const Outcome bad = Refit({"certs", folder_.Path("bad"), "--host", host});
    EXPECT_NE(bad.code, 0) << host;
    EXPECT_FALSE(std::filesystem::exists(folder_.Path("bad"))) << host;
  }
  EXPECT_EQ(Refit({"certs", folder_.Path("no/such/parent")}).code, 3);
  EXPECT_EQ(Refit({"certs", folder_.Path("bad"), "--days", "0"}).code, 2);
}

}  // namespace
}  // namespace refit
