// What Prometheus sees of a service, scraped over HTTP while trainers and workers use it.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/net/channel.h"
#include "refit/inspector.h"
#include "refit/subscriber.h"
#include "refit/v1/pull.grpc.pb.h"
#include "test_paths.h"
#include "tests/integration/subprocess.h"
#include "tests/support/files.h"
#include "tests/support/fleet.h"
#include "tests/support/http.h"

namespace refit {
namespace {

using absl::StatusCode;
using ::testing::AllOf;
using ::testing::Ge;
using ::testing::Gt;
using ::testing::HasSubstr;
using ::testing::IsSupersetOf;
using ::testing::Le;
using ::testing::StartsWith;

// One scrape.
class Scrape {
 public:
  explicit Scrape(const std::string& address) {
    const std::string answer = HttpGet(address, "/metrics");
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 200"));
    const size_t body = answer.find("\r\n\r\n");
    EXPECT_NE(body, std::string::npos);
    std::istringstream lines(answer.substr(body + 4));
    for (std::string line; std::getline(lines, line);) Read(line);
  }

  // Of `name{label="value",...}`, labels in the order of server/METRICS.md. NaN, which equals nothing, without a
  // sample.
  double operator[](const std::string& sample) const {
    const auto found = samples_.find(sample);
    return found == samples_.end() ? std::nan("") : found->second;
  }
  bool Has(const std::string& sample) const { return samples_.count(sample) != 0; }
  const std::map<std::string, double>& samples() const { return samples_; }
  // Names of the metrics, with their types. Those of the web server's own are left out.
  const std::map<std::string, std::string>& types() const { return types_; }

 private:
  void Read(const std::string& line) {
    if (line.rfind("# TYPE ", 0) == 0) {
      const std::vector<std::string> words = absl::StrSplit(line, ' ');
      if (words[2].rfind("exposer_", 0) != 0) types_[words[2]] = words[3];
    }
    if (line.empty() || line[0] == '#') return;
    const size_t space = line.rfind(' ');
    const auto [at, added] = samples_.emplace(line.substr(0, space), std::stod(line.substr(space + 1)));
    EXPECT_TRUE(added) << "twice: " << at->first;
  }

  std::map<std::string, double> samples_;
  std::map<std::string, std::string> types_;
};

std::string ProjectFile(const std::string& path) {
  std::ifstream file(absl::StrCat(REFIT_TEST_DATA, "/../../", path));
  EXPECT_TRUE(file) << path;
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

std::set<std::string> NamesIn(const std::string& text, const std::string& pattern) {
  const std::regex name(pattern);
  std::set<std::string> names;
  for (std::sregex_iterator it(text.begin(), text.end(), name); it != std::sregex_iterator(); ++it) {
    names.insert((*it)[1]);
  }
  return names;
}

class MetricsTest : public ::testing::Test {
 protected:
  void Start(ServerOptions options = {}) {
    options.metrics = "localhost:0";
    server_ = StartService(options);
    ASSERT_NE(server_, nullptr);
    publisher_ = *Publisher::Connect(WireTo(server_->address()));
    subscriber_ = *Subscriber::Connect(WireTo(server_->address()));
  }

  Scrape Look() const { return Scrape(server_->metrics_address()); }

  absl::Status Pull(const std::string& worker) {
    PullOptions options;
    options.worker = worker;
    return subscriber_->Pull(options).status();
  }

  // A pull that goes on from the second tensor of version 2, as after a cut; its status and payload bytes.
  std::pair<grpc::Status, uint64_t> Resume(const std::string& worker) {
    auto channel = Connect(WireTo(server_->address()));
    EXPECT_OK(channel);
    const auto stub = v1::PullService::NewStub(*channel);
    v1::PullRequest request;
    request.set_model("default");
    request.set_worker(worker);
    request.mutable_version()->set_number(2);
    request.mutable_resume()->set_tensor(1);
    grpc::ClientContext context;
    const auto reader = stub->Pull(&context, request);
    v1::PullResponse response;
    uint64_t bytes = 0;
    while (reader->Read(&response)) {
      if (response.has_committed()) bytes = response.committed().sent_bytes();
    }
    return {reader->Finish(), bytes};
  }

  uint64_t ModelBytes() const {
    uint64_t bytes = 0;
    for (const TensorSpec& spec : model_.specs()) bytes += spec.ByteSize();
    return bytes;
  }

  const TestModel model_;
  std::unique_ptr<RefitServer> server_;
  std::unique_ptr<Publisher> publisher_;
  std::unique_ptr<Subscriber> subscriber_;
};

TEST_F(MetricsTest, ANewServiceHasNothingButItself) {
  Start();
  const Scrape scrape = Look();
  EXPECT_EQ(scrape["refit_memory_budget_bytes"], static_cast<double>(DefaultMemoryBudget()));
  EXPECT_EQ(scrape["refit_memory_reserved_bytes"], 0);
  EXPECT_EQ(scrape["refit_convert_queue"], 0);
  EXPECT_THAT(scrape["refit_convert_threads"], Ge(1));
  EXPECT_THAT(scrape["process_resident_memory_bytes"], Gt(1e6));
  EXPECT_THAT(scrape["process_open_fds"], AllOf(Gt(3), Le(scrape["process_max_fds"])));
  EXPECT_THAT(scrape["process_start_time_seconds"], Gt(1.7e9));
  for (const auto& [sample, value] : scrape.samples()) {
    EXPECT_FALSE(std::regex_search(sample, std::regex("refit_(version|worker|spool)_"))) << sample;
  }
}

TEST_F(MetricsTest, ShowsAVersionWhileItIsPushedAndAfter) {
  Start();
  auto push = publisher_->Open(model_.Options(1), model_.specs());
  ASSERT_OK(push);
  const Scrape open = Look();
  EXPECT_EQ(open[R"(refit_version_state{model="default",version="1",state="open"})"], 1);
  EXPECT_EQ(open[R"(refit_versions{model="default",state="open"})"], 1);
  EXPECT_EQ(open["refit_push_streams"], 1);
  EXPECT_EQ(open[R"(refit_version_received_bytes{model="default",version="1"})"], 0);
  EXPECT_EQ(open["refit_memory_reserved_bytes"], static_cast<double>(ModelBytes()));

  for (size_t i = 0; i < model_.specs().size(); ++i) ASSERT_OK((*push)->Append(i, model_.Bytes(1, i)));
  const auto committed = (*push)->Commit();
  ASSERT_OK(committed);
  const Scrape after = Look();
  const auto bytes = static_cast<double>(ModelBytes());
  EXPECT_EQ(after[R"(refit_version_state{model="default",version="1",state="committed"})"], 1);
  EXPECT_FALSE(after.Has(R"(refit_version_state{model="default",version="1",state="open"})"));
  EXPECT_EQ(after[R"(refit_versions{model="default",state="open"})"], 0);
  EXPECT_EQ(after[R"(refit_newest_committed_version{model="default"})"], 1);
  EXPECT_EQ(after[R"(refit_versions_closed_total{model="default",outcome="committed"})"], 1);
  for (const char* name : {"", "converted_", "received_", "declared_"}) {
    EXPECT_EQ(after[absl::StrCat("refit_version_", name, R"(bytes{model="default",version="1"})")], bytes) << name;
  }
  EXPECT_EQ(after["refit_received_bytes_total"], bytes);
  EXPECT_EQ(after[R"(refit_version_spooled{model="default",version="1"})"], 0);

  // The phases lie within the push, one after the other; converting is a part of receiving, with one trainer.
  const double whole = after[R"(refit_version_push_seconds{model="default",version="1"})"];
  const auto phase = [&](const char* name) {
    return after[absl::StrCat(R"(refit_version_phase_seconds{model="default",version="1",phase=")", name, "\"}")];
  };
  EXPECT_THAT(phase("open"), Ge(0));
  EXPECT_THAT(phase("convert"), AllOf(Gt(0), Le(phase("receive"))));
  EXPECT_THAT(phase("open") + phase("receive"), Le(whole + 1e-6));
  EXPECT_EQ(whole, static_cast<double>(committed->closed_at_ns - committed->opened_at_ns) / 1e9);
}

TEST_F(MetricsTest, CountsAbortsAndFences) {
  Start();
  auto aborted = publisher_->Open(model_.Options(1), model_.specs());
  ASSERT_OK(aborted);
  ASSERT_OK((*aborted)->Abort("it diverged"));
  auto fenced = publisher_->Open(model_.Options(2), model_.specs());
  ASSERT_OK(fenced);
  PublishOptions later = model_.Options(2);
  later.trainer_epoch = 1;
  ASSERT_OK(model_.Push(*publisher_, later));
  EXPECT_FALSE((*fenced)->Commit().ok());
  const Scrape scrape = Look();
  EXPECT_EQ(scrape[R"(refit_versions_closed_total{model="default",outcome="aborted"})"], 1);
  EXPECT_EQ(scrape[R"(refit_versions_closed_total{model="default",outcome="fenced"})"], 1);
  EXPECT_EQ(scrape[R"(refit_versions_closed_total{model="default",outcome="committed"})"], 1);
  EXPECT_EQ(scrape[R"(refit_versions{model="default",state="aborted"})"], 2);  // the other 2 is of another epoch
  EXPECT_EQ(scrape[R"(refit_pushes_failed_total{code="FAILED_PRECONDITION"})"], 1);
}

TEST_F(MetricsTest, ShowsWorkers) {
  Start();
  ASSERT_OK(model_.Push(*publisher_, 1));
  WorkerOptions options;
  options.pull.worker = R"(rack "7"\a)";  // a name that is to be escaped
  options.install = [&](StagedVersion& staged) { return model_.Check(staged); };
  auto worker = Worker::Create(WireTo(server_->address()), options);
  ASSERT_OK(worker);
  ASSERT_OK((*worker)->Refit());
  ASSERT_OK(model_.Push(*publisher_, 2));
  const auto [resumed, resumed_bytes] = Resume("w1");
  ASSERT_TRUE(resumed.ok()) << resumed.error_message();
  ASSERT_OK(Pull("w1"));

  const Scrape scrape = Look();
  const auto of = [&](const std::string& name, const std::string& of_worker, const std::string& label = "") {
    return scrape[absl::StrCat("refit_worker_", name, R"({model="default",worker=")", of_worker, "\"", label, "}")];
  };
  const std::string w0 = R"(rack \"7\"\\a)";
  const auto bytes = static_cast<double>(ModelBytes());
  EXPECT_EQ(of("state", w0, R"(,state="installed")"), 1);
  EXPECT_EQ(of("connected", w0), 1);
  EXPECT_EQ(of("version", w0), 1);
  EXPECT_EQ(of("staged_version", w0), 1);
  EXPECT_EQ(of("installed_version", w0), 1);
  EXPECT_EQ(of("versions_behind", w0), 1);
  EXPECT_EQ(of("pull_sent_bytes", w0), bytes);
  EXPECT_EQ(of("pull_bytes", w0), bytes);
  EXPECT_EQ(of("pulls_total", w0), 1);
  EXPECT_EQ(of("pulls_resumed_total", w0), 0);
  const double wire = of("phase_seconds", w0, R"(,phase="wire")");
  const double wait = of("phase_seconds", w0, R"(,phase="wait")");
  EXPECT_THAT(wire, Gt(0));
  EXPECT_THAT(wait, Ge(0));
  EXPECT_THAT(of("phase_seconds", w0, R"(,phase="stage")"), Gt(0));
  EXPECT_THAT(of("phase_seconds", w0, R"(,phase="install")"), Gt(0));

  EXPECT_EQ(of("state", "w1", R"(,state="complete")"), 1);
  EXPECT_EQ(of("pulls_total", "w1"), 2);
  EXPECT_EQ(of("pulls_resumed_total", "w1"), 1);
  EXPECT_EQ(of("pulls_failed_total", "w1"), 0);
  EXPECT_EQ(of("sent_bytes_total", "w1"), bytes + static_cast<double>(resumed_bytes));
  EXPECT_FALSE(scrape.Has(R"(refit_worker_installed_version{model="default",worker="w1"})"));  // it says nothing
  EXPECT_EQ(scrape["refit_pulls_total"], 3);
  EXPECT_EQ(scrape["refit_pulls_resumed_total"], 1);
  EXPECT_EQ(scrape["refit_sent_bytes_total"], 2 * bytes + static_cast<double>(resumed_bytes));
}

TEST_F(MetricsTest, CountsFailuresAndLimits) {
  ServerOptions options;
  options.limits.max_tensors_per_version = 3;
  options.limits.max_regex_bytes = 8;
  options.limits.max_ranks = 2;
  Start(options);
  EXPECT_THAT(Pull("w"), StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(model_.Push(*publisher_, 1).status(), StatusIs(StatusCode::kResourceExhausted));
  PullOptions filtered;
  filtered.filter = "0123456789";
  for (int i = 0; i < 2; ++i) {
    EXPECT_THAT(subscriber_->Pull(filtered).status(), StatusIs(StatusCode::kResourceExhausted));
  }
  const Scrape scrape = Look();
  EXPECT_EQ(scrape[R"(refit_limits_hit_total{limit="--max-tensors"})"], 1);
  EXPECT_EQ(scrape[R"(refit_limits_hit_total{limit="--max-regex-bytes"})"], 2);
  EXPECT_FALSE(scrape.Has(R"(refit_limits_hit_total{limit="--max-ranks"})"));
  EXPECT_EQ(scrape[R"(refit_pushes_failed_total{code="RESOURCE_EXHAUSTED"})"], 1);
  EXPECT_EQ(scrape[R"(refit_pulls_failed_total{code="RESOURCE_EXHAUSTED"})"], 2);
  EXPECT_EQ(scrape[R"(refit_pulls_failed_total{code="NOT_FOUND"})"], 1);
  EXPECT_EQ(scrape["refit_pulls_total"], 0);  // none began
}

TEST_F(MetricsTest, CountsWhoIsTurnedAway) {
  const ScratchFolder folder;
  const std::string token = "0123456789abcdef";
  ServerOptions options;
  options.authorization.tokens = folder.Write("tokens", "worker " + token + "\n");
  Start(options);
  EXPECT_THAT(Pull("w"), StatusIs(StatusCode::kUnauthenticated));
  ChannelOptions with_token = WireTo(server_->address());
  with_token.security.token_file = folder.Write("token", token);
  const auto publisher = *Publisher::Connect(with_token);
  for (int i = 0; i < 2; ++i) {
    EXPECT_THAT(publisher->Abort("default", 1, ""), StatusIs(StatusCode::kPermissionDenied));
  }
  const Scrape scrape = Look();
  EXPECT_EQ(scrape[R"(refit_calls_refused_total{code="UNAUTHENTICATED"})"], 1);
  EXPECT_EQ(scrape[R"(refit_calls_refused_total{code="PERMISSION_DENIED"})"], 2);
  for (const auto& [sample, value] : scrape.samples()) EXPECT_EQ(sample.find(token), std::string::npos);
}

TEST_F(MetricsTest, ShowsTheSpool) {
  const ScratchFolder folder;
  ServerOptions options;
  options.spool = folder.Path("spool");
  Start(options);
  EXPECT_EQ(Look()["refit_spool_versions"], 0);
  ASSERT_OK(model_.Push(*publisher_, 1));
  server_->Shutdown(std::chrono::seconds(20));  // the endpoint outlives the services
  const Scrape scrape = Look();
  EXPECT_EQ(scrape["refit_spool_versions"], 1);
  EXPECT_THAT(scrape["refit_spool_bytes"], Ge(static_cast<double>(ModelBytes())));
  EXPECT_EQ(scrape["refit_spool_pending_models"], 0);
  EXPECT_EQ(scrape["refit_spool_failing"], 0);
  EXPECT_EQ(scrape[R"(refit_version_spooled{model="default",version="1"})"], 1);
}

TEST_F(MetricsTest, SamplesAreOfWhatTheServiceStillKnows) {
  ServerOptions options;
  options.store.retain_versions = 1;
  options.store.remembered_versions = 2;
  Start(options);
  constexpr uint64_t kVersions = 8;
  for (uint64_t version = 1; version <= kVersions; ++version) ASSERT_OK(model_.Push(*publisher_, version));
  const Scrape scrape = Look();
  EXPECT_FALSE(scrape.Has(R"(refit_version_bytes{model="default",version="1"})"));
  EXPECT_TRUE(scrape.Has(R"(refit_version_bytes{model="default",version="8"})"));
  EXPECT_EQ(scrape[R"(refit_versions_closed_total{model="default",outcome="committed"})"], kVersions);
  EXPECT_EQ(scrape["refit_received_bytes_total"], static_cast<double>(kVersions * ModelBytes()));
}

TEST_F(MetricsTest, DocumentationAndScrapeAgree) {
  Start();
  const Scrape scrape = Look();
  std::set<std::string> served;
  for (const auto& [name, type] : scrape.types()) {
    served.insert(name);
    EXPECT_EQ(type == "counter", name.size() > 6 && name.substr(name.size() - 6) == "_total") << name;
  }
  EXPECT_EQ(NamesIn(ProjectFile("server/METRICS.md"), "`((?:refit|process)_[a-z_]+)`"), served);
}

TEST_F(MetricsTest, TheDashboardAsksForNothingElse) {
  Start();
  const Scrape scrape = Look();
  std::set<std::string> served;
  for (const auto& [name, type] : scrape.types()) served.insert(name);
  const nlohmann::json dashboard = nlohmann::json::parse(ProjectFile("deploy/grafana/refit.json"));
  std::string queries;
  for (const nlohmann::json& panel : dashboard.at("panels")) {
    if (panel.at("type") == "row") continue;
    ASSERT_FALSE(panel.at("targets").empty()) << panel.at("title");
    for (const nlohmann::json& target : panel.at("targets")) queries += target.at("expr").get<std::string>() + "\n";
  }
  for (const nlohmann::json& variable : dashboard.at("templating").at("list")) {
    if (variable.at("type") == "query") queries += variable.at("query").at("query").get<std::string>() + "\n";
  }
  const std::set<std::string> asked = NamesIn(queries, "\\b((?:refit|process|exposer)_[a-z_]+)\\b");
  EXPECT_THAT(served, IsSupersetOf(asked));
  EXPECT_GT(asked.size(), 20u);
}

TEST_F(MetricsTest, IsNotHeldUpByWhoeverSaysNothing) {
  Start();
  std::array<std::unique_ptr<TcpConnection>, 8> silent;
  for (auto& connection : silent) connection = std::make_unique<TcpConnection>(server_->metrics_address());
  silent.front()->Send("GET /met");
  EXPECT_TRUE(Look().Has("refit_push_streams"));
  const TcpConnection garbage(server_->metrics_address());
  garbage.Send(std::string("\0\xff\r\n\r\n", 6));
  EXPECT_THAT(garbage.ReadAll(), Not(HasSubstr("200 OK")));
  EXPECT_THAT(HttpGet(server_->metrics_address(), "/../../etc/passwd"), Not(HasSubstr("200 OK")));
  EXPECT_TRUE(Look().Has("refit_push_streams"));
}

TEST_F(MetricsTest, AddressesThatWillNotDo) {
  ServerOptions options;
  options.listen = "127.0.0.1:0";
  for (const char* address :
       {"9464", ":9464", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:9x", "127.0.0.1:-1",
        "127.0.0.1:1,0.0.0.0:2", "127.0.0.1:1s", "unix:/tmp/metrics", "rack7:9464", "[::1]:9464"}) {
    options.metrics = address;
    EXPECT_THAT(RefitServer::Start(options).status(), StatusIs(StatusCode::kInvalidArgument, HasSubstr("HOST:PORT")))
        << address;
  }
  options.metrics = "0.0.0.0:0";
  EXPECT_THAT(RefitServer::Start(options).status(),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("--allow-plaintext")));
  options.allow_plaintext = true;
  const auto open = RefitServer::Start(options);
  ASSERT_OK(open);
  EXPECT_TRUE(Scrape((*open)->metrics_address()).Has("refit_push_streams"));

  Start();
  options.metrics = server_->metrics_address();
  EXPECT_THAT(RefitServer::Start(options).status(),
              StatusIs(StatusCode::kUnavailable, HasSubstr(server_->metrics_address())));
}

TEST_F(MetricsTest, OffUnlessAskedFor) {
  const auto server = StartService();
  ASSERT_NE(server, nullptr);
  EXPECT_EQ(server->metrics_address(), "");
  const auto refused = Subprocess::Start("refit-server", {"--listen", "127.0.0.1:0", "--metrics", "0.0.0.0:9464"});
  const Outcome outcome = refused->Wait();
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, AllOf(StartsWith("refit-server: "), HasSubstr("not loopback")));
}

}  // namespace
}  // namespace refit
