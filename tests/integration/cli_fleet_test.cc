// A fleet from the command line, in real processes: who is killed, who comes back, and who is of another run.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "tests/integration/service_process.h"
#include "tests/integration/subprocess.h"
#include "tests/support/eventually.h"
#include "tests/support/push.h"
#include "tests/support/status_matchers.h"

namespace refit {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using Arguments = std::vector<std::string>;

class CliFleet : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_FALSE(service_->address().empty()) << service_->Err(); }

  std::unique_ptr<Subprocess> Start(Arguments arguments) const {
    arguments.insert(arguments.end(), {"--server", service_->address()});
    return Subprocess::Start("refit", arguments);
  }
  Outcome Run(const Arguments& arguments) const { return Start(arguments)->Wait(); }

  // One tensor of the version's number.
  void Push(uint64_t version) const {
    ASSERT_OK(PushIdentity(service_->Channel(), version, {{"w", DType::kU8, {4}}}, [&](size_t) {
      return std::vector<std::byte>(4, std::byte{static_cast<uint8_t>(version)});
    }));
  }
  void ExpectInstalled(const std::string& version, const std::string& workers) const {
    const Outcome outcome = Run({"await", version, "--workers", workers, "--all", "--timeout", "30"});
    EXPECT_EQ(outcome.code, 0) << outcome.err;
  }
  json Workers() const {
    const Outcome outcome = Run({"status", "--json"});
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return json::parse(outcome.out).at("workers");
  }

  TemporaryFolder folder_;
  std::unique_ptr<ServiceProcess> service_ = std::make_unique<ServiceProcess>();
};

TEST_F(CliFleet, AWorkerThatIsKilledAndComesBackIsNotInstalled) {
  Push(1);
  {
    const auto worker = Start({"follow", "--worker", "w0"});
    ExpectInstalled("1", "1");
    worker->Signal(SIGKILL);
    EXPECT_EQ(worker->Wait().code, 137);
  }
  ASSERT_TRUE(Eventually([&] { return Workers().at(0).at("connected") == false; }));
  Outcome outcome = Run({"await", "1", "--timeout", "0.1"});
  EXPECT_EQ(outcome.code, 5);
  EXPECT_THAT(outcome.err, HasSubstr("gone, and not counted: w0"));
  // With base weights, and no place to install to.
  const auto reborn = Start({"follow", "--worker", "w0", "--out", "/nonexistent/x.safetensors"});
  ASSERT_TRUE(Eventually([&] { return reborn->Err().find("nonexistent") != std::string::npos; }));
  outcome = Run({"await", "1", "--all", "--timeout", "0.1"});
  EXPECT_EQ(outcome.code, 5);
  EXPECT_THAT(outcome.err, AllOf(HasSubstr("behind: w0 (failed"), HasSubstr("nonexistent")));
}

TEST_F(CliFleet, TwoOfOneNameAreListedAndCountedAsTwo) {
  const auto good = Start({"follow", "--worker", "pod/1", "--out", folder_.Path("a.safetensors")});
  const auto bad = Start({"follow", "--worker", "pod/1", "--out", "/nonexistent/b.safetensors"});
  Push(1);
  ASSERT_TRUE(Eventually([&] { return bad->Err().find("nonexistent") != std::string::npos; }));
  const Outcome outcome = Run({"await", "1", "--all", "--timeout", "0.1"});
  EXPECT_EQ(outcome.code, 5);
  EXPECT_THAT(outcome.err, AllOf(HasSubstr("behind: pod/1#"), HasSubstr("nonexistent")));
  const json workers = Workers();
  ASSERT_EQ(workers.size(), 2u);
  EXPECT_NE(workers[0].at("life"), workers[1].at("life"));
  EXPECT_THAT(workers[0].at("label").get<std::string>(), HasSubstr("pod/1#"));
  EXPECT_THAT(Run({"status"}).out, HasSubstr(workers[1].at("label").get<std::string>()));
  const auto another = Start({"follow", "--worker", "pod/1"});
  const Outcome two = Run({"await", "1", "--workers", "2", "--timeout", "30"});
  EXPECT_EQ(two.code, 0) << two.err;
}

TEST_F(CliFleet, AServiceThatLostItsMemoryTellsNobodyInstalled) {
  const auto stays = Start({"follow", "--worker", "stays"});
  const auto goes =
      Start({"follow", "--worker", "goes", "--accept-new-run", "--out", folder_.Path("goes.safetensors")});
  Push(50);
  ExpectInstalled("50", "2");
  const int port = service_->port();
  service_->Kill();
  service_ = std::make_unique<ServiceProcess>(std::vector<std::string>(), port);
  ASSERT_FALSE(service_->address().empty()) << service_->Err();
  Push(1);
  ASSERT_TRUE(Eventually([&] { return stays->Err().find("has version 50 of another run") != std::string::npos; }))
      << stays->Err();
  EXPECT_EQ(Run({"await", "1", "--timeout", "30"}).code, 0);  // the other one
  const Outcome all = Run({"await", "1", "--all", "--timeout", "0.1"});
  EXPECT_EQ(all.code, 5);
  EXPECT_THAT(all.err, AllOf(HasSubstr("behind: stays (has 50 of another run"), HasSubstr("accept_new_run"),
                             Not(HasSubstr("goes ("))));
  EXPECT_THAT(Run({"status"}).out, HasSubstr("50 of another run"));
  EXPECT_THAT(service_->Err(), HasSubstr("worker has a version of another run"));
  EXPECT_TRUE(goes->IsRunning());
}

TEST_F(CliFleet, ALargerEpochMayGoBackInNumbersAndWorkersFollow) {
  const auto worker = Start({"follow", "--worker", "w0"});
  const auto push = [&](const char* version, const char* epoch) {
    return Run({"push", "--synthetic", "gemma4_tiny", "--layers", "1", "--version", version, "--epoch", epoch});
  };
  EXPECT_EQ(push("47", "1").code, 0);
  ExpectInstalled("47", "1");
  EXPECT_EQ(push("41", "2").code, 0);
  ExpectInstalled("41", "1");
  const Outcome refused = push("42", "1");
  EXPECT_EQ(refused.code, 1);
  EXPECT_THAT(refused.err, HasSubstr("epoch 2 has taken over"));
  const Outcome older = Run({"await", "47", "--epoch", "1", "--timeout", "30"});
  EXPECT_EQ(older.code, 1);
  EXPECT_THAT(older.err, HasSubstr("trainer epoch 2 has taken over"));
  EXPECT_EQ(Run({"pull", "--version", "47", "--epoch", "2"}).code, 3);
  EXPECT_EQ(Run({"pull", "--version", "47", "--epoch", "1"}).code, 0);
  EXPECT_THAT(Run({"versions"}).out, HasSubstr("epoch"));
}

TEST_F(CliFleet, WhatWouldHoldNothingIsRefused) {
  const Arguments nothing = {"push", "--synthetic", "gemma4_tiny", "--layers", "1", "--exclude-key-regex", ".*"};
  const Outcome refused = Run(nothing);
  EXPECT_EQ(refused.code, 1);
  EXPECT_THAT(refused.err, AllOf(HasSubstr("exclude_key_regex '.*' leaves none of the"), HasSubstr("--allow-empty")));
  EXPECT_EQ(Run({"pull"}).code, 3);
  Arguments meant = nothing;
  meant.emplace_back("--allow-empty");
  EXPECT_EQ(Run(meant).code, 0);
  Push(7);
  for (const Arguments& command : {Arguments{"pull"}, Arguments{"describe", "latest"}}) {
    Arguments filter = command;
    filter.insert(filter.end(), {"--filter", "no such"});
    const Outcome filtered = Run(filter);
    EXPECT_EQ(filtered.code, 3) << command[0];
    EXPECT_THAT(filtered.err, HasSubstr("filter 'no such' selects none of its 1 tensors"));
  }
}

TEST_F(CliFleet, WhatIsTakenFromTheEnvironmentIsSaid) {
  ASSERT_EQ(setenv("REFIT_SERVER", "127.0.0.1:1", 1), 0);
  const Outcome outcome = Subprocess::Start("refit", {"status", "--connect-timeout", "0.1"})->Wait();
  unsetenv("REFIT_SERVER");
  EXPECT_EQ(outcome.code, 4);
  EXPECT_THAT(outcome.err, HasSubstr("(from the environment: REFIT_SERVER)"));
}

}  // namespace
}  // namespace refit
