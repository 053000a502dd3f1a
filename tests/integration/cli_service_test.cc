// The command line against a real service.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "client/inspector.h"
#include "client/publisher.h"
#include "common/safetensors/safetensors.h"
#include "tests/integration/subprocess.h"

namespace refit {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Arguments = std::vector<std::string>;

std::string GoldenPath(const std::string& name) { return std::string(REFIT_TEST_DATA) + "/golden/" + name; }

// Looks again and again until `condition` holds.
bool Eventually(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (std::chrono::steady_clock::now() < deadline) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

class CliService : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string port_file = folder_.Path("port");
    server_ = Subprocess::Start("refit-server", {"--listen", "127.0.0.1:0", "--port-file", port_file});
    std::string port;
    ASSERT_TRUE(Eventually([&] {
      port = ReadFile(port_file);
      return !port.empty() && port.back() == '\n';
    })) << server_->Err();
    port.pop_back();
    address_ = "127.0.0.1:" + port;
  }

  void TearDown() override {
    ASSERT_NE(server_, nullptr);
    ASSERT_TRUE(server_->IsRunning()) << server_->Err();
    server_->Signal(SIGTERM);
    EXPECT_EQ(server_->Wait().code, 0);
  }

  std::unique_ptr<Subprocess> Start(Arguments arguments) const {
    arguments.insert(arguments.end(), {"--server", address_});
    return Subprocess::Start("refit", arguments);
  }
  Outcome Run(const Arguments& arguments) const { return Start(arguments)->Wait(); }
  json RunJson(Arguments arguments) const {
    arguments.push_back("--json");
    const Outcome outcome = Run(arguments);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return json::parse(outcome.out);
  }
  void MustRun(const Arguments& arguments) const {
    const Outcome outcome = Run(arguments);
    ASSERT_EQ(outcome.code, 0) << arguments[0] << ": " << outcome.err;
  }
  void PushTiny(const std::string& version, const std::string& seed) const {
    MustRun({"push", "--synthetic", "gemma4_tiny", "--seed", seed, "--version", version});
  }
  ChannelOptions Channel() const {
    ChannelOptions channel;
    channel.address = address_;
    return channel;
  }
  // A version that stays open: its one tensor never comes.
  std::unique_ptr<VersionPush> OpenVersion(uint64_t version) const {
    auto publisher = Publisher::Connect(Channel());
    EXPECT_TRUE(publisher.ok()) << publisher.status();
    PublishOptions options;
    options.version = version;
    auto push = (*publisher)->Open(options, {{"model.norm.weight", DType::kF32, {4}}});
    EXPECT_TRUE(push.ok()) << push.status();
    return *std::move(push);
  }
  bool HasVersion(uint64_t number, v1::VersionState state) const {
    auto inspector = Inspector::Connect(Channel());
    if (!inspector.ok()) return false;
    const auto known = (*inspector)->Versions();
    if (!known.ok()) return false;
    for (const v1::VersionSummary& version : known->versions()) {
      if (version.version() == number && version.state() == state) return true;
    }
    return false;
  }
  bool HasWorker(const std::string& name, v1::WorkerState state) const {
    auto inspector = Inspector::Connect(Channel());
    if (!inspector.ok()) return false;
    const auto known = (*inspector)->Workers();
    if (!known.ok()) return false;
    for (const v1::Worker& worker : known->workers()) {
      if (worker.name() == name && worker.state() == state) return true;
    }
    return false;
  }

  TemporaryFolder folder_;
  std::unique_ptr<Subprocess> server_;
  std::string address_;
};

TEST_F(CliService, WhatIsPulledEqualsTheOfflineConversion) {
  const std::string native = GoldenPath("g_convert_0.in.safetensors");
  const std::string pulled = folder_.Path("pulled.safetensors");
  const std::string converted = folder_.Path("converted.safetensors");
  MustRun({"push", native, "--version", "1"});
  MustRun({"pull", "--version", "1", "--out", pulled, "--verify", native});
  ASSERT_EQ(Refit({"convert", "--to", "hf", "--experts", "5", native, converted}).code, 0);
  const auto received = SafetensorsFile::Open(pulled);
  const auto expected = SafetensorsFile::Open(converted);
  ASSERT_TRUE(received.ok()) << received.status();
  ASSERT_TRUE(expected.ok()) << expected.status();
  ASSERT_EQ((*received)->tensors(), (*expected)->tensors());
  for (size_t i = 0; i < (*received)->tensors().size(); ++i) EXPECT_EQ((*received)->data(i), (*expected)->data(i));
}

TEST_F(CliService, CastAndExclusionAreVerifiedToo) {
  const Arguments native = {"gemma4_tiny",         "--synthetic-dtype", "F32", "--seed", "3", "--dtype", "BF16",
                            "--exclude-key-regex", ".*layers\\.0\\..*"};
  Arguments push = {"push", "--synthetic"};
  push.insert(push.end(), native.begin(), native.end());
  MustRun(push);
  Arguments pull = {"pull", "--json", "--verify-synthetic"};
  pull.insert(pull.end(), native.begin(), native.end());
  const Outcome outcome = Run(pull);
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_TRUE(json::parse(outcome.out)["verified"]);
  // Without the cast the expected dtypes are others.
  EXPECT_EQ(Run({"pull", "--verify-synthetic", "gemma4_tiny", "--synthetic-dtype", "F32", "--seed", "3"}).code, 6);
}

TEST_F(CliService, VerificationNamesTensorAndElementOfAWrongSeed) {
  PushTiny("1", "1");
  const std::string out = folder_.Path("out.safetensors");
  const Outcome outcome = Run({"pull", "--verify-synthetic", "gemma4_tiny", "--seed", "2", "--out", out});
  EXPECT_EQ(outcome.code, 6);
  EXPECT_THAT(outcome.err, HasSubstr("refit: pull: "));
  EXPECT_THAT(outcome.err, HasSubstr("element ["));
  EXPECT_THAT(outcome.err, HasSubstr("expected 0x"));
  EXPECT_THAT(folder_.Names(), ElementsAre("port"));
  EXPECT_EQ(Run({"pull", "--verify-synthetic", "gemma4_tiny", "--seed", "1"}).code, 0);
}

TEST_F(CliService, WorkersPullWhileTheTrainerPushes) {
  std::vector<std::unique_ptr<Subprocess>> workers;
  for (const char* name : {"w0", "w1"}) {
    workers.push_back(Start({"pull", "--version", "5", "--wait", "60", "--worker", name, "--verify-synthetic",
                             "gemma4_tiny", "--seed", "9"}));
    ASSERT_TRUE(Eventually([&] { return HasWorker(name, v1::WORKER_STATE_WATCHING); }));
  }
  const auto watch = Start({"watch", "--until", "5", "--pulls", "2", "--timeout", "60"});
  PushTiny("5", "9");
  for (const auto& worker : workers) {
    const Outcome outcome = worker->Wait();
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_THAT(outcome.out, HasSubstr("Pulled version 5"));
  }
  const Outcome watched = watch->Wait();
  EXPECT_EQ(watched.code, 0) << watched.err;
  EXPECT_THAT(watched.out, HasSubstr("version 5 committed: 165 tensors"));
  for (const json& worker : RunJson({"status"})["workers"]) {
    EXPECT_EQ(worker["state"], "complete");
    EXPECT_EQ(worker["last_complete_version"], 5);
  }
}

TEST_F(CliService, PullBeginsBeforeTheCommit) {
  const auto push = OpenVersion(4);
  const auto pull = Start({"pull", "--version", "4", "--worker", "early"});
  ASSERT_TRUE(Eventually([&] { return HasWorker("early", v1::WORKER_STATE_PULLING); }));
  const float values[] = {1, 2, 3, 4};
  ASSERT_TRUE(
      push->Push("model.norm.weight", absl::MakeConstSpan(reinterpret_cast<const std::byte*>(values), 16)).ok());
  ASSERT_TRUE(push->Commit().ok());
  EXPECT_EQ(pull->Wait().code, 0);
}

TEST_F(CliService, PushChoosesTheNextNumber) {
  PushTiny("7", "1");
  EXPECT_EQ(RunJson({"push", "--synthetic", "gemma4_tiny"})["version"]["version"], 8);
  const Outcome again = Run({"push", "--synthetic", "gemma4_tiny", "--version", "7"});
  EXPECT_EQ(again.code, 1);
  EXPECT_THAT(again.err, HasSubstr("7"));
}

TEST_F(CliService, ListsAndDescribes) {
  EXPECT_THAT(Run({"versions"}).out, HasSubstr("No versions yet"));
  EXPECT_THAT(Run({"status"}).out, HasSubstr("No workers yet"));
  PushTiny("1", "1");
  PushTiny("2", "2");
  EXPECT_THAT(Run({"versions"}).out, HasSubstr("committed"));
  const json versions = RunJson({"versions"})["versions"];
  ASSERT_EQ(versions.size(), 2u);
  EXPECT_EQ(versions[1]["state"], "committed");
  EXPECT_EQ(versions[1]["tensors"], 165);
  EXPECT_TRUE(RunJson({"versions", "--model", "other"})["versions"].empty());

  const json status = RunJson({"status"});
  EXPECT_EQ(status["versions"].size(), 2u);
  EXPECT_GT(status["server"]["memory_budget_bytes"], 0);

  const json described = RunJson({"describe", "latest"});
  EXPECT_EQ(described["summary"]["version"], 2);
  ASSERT_EQ(described["entries"].size(), 165u);
  const json limited = RunJson({"describe", "1", "--filter", "layers\\.0\\.", "--limit", "3"});
  EXPECT_EQ(limited["entries"].size(), 3u);
  EXPECT_EQ(limited["more"], true);

  const std::string name = described["entries"][0]["tensor"]["name"];
  EXPECT_THAT(Run({"describe", "latest"}).out, HasSubstr(name));
  const json tensor = RunJson({"describe", "latest", name, "--preview", "3"});
  EXPECT_EQ(tensor["preview"].size(), 3u);
  EXPECT_EQ(tensor["statistics"]["nan_count"], 0);
  EXPECT_LT(tensor["statistics"]["max"], 1.0);
  EXPECT_FALSE(RunJson({"describe", "latest", name, "--no-statistics"}).contains("statistics"));
  EXPECT_THAT(Run({"describe", "latest", name}).out, HasSubstr("mean"));
}

TEST_F(CliService, WhatIsNotThereIsCode3) {
  EXPECT_EQ(Run({"pull"}).code, 3);
  PushTiny("1", "1");
  for (const Arguments& arguments : std::vector<Arguments>{{"pull", "--version", "9"},
                                                           {"pull", "--model", "other"},
                                                           {"describe", "9"},
                                                           {"describe", "1", "no.such.tensor"},
                                                           {"abort", "9", "--reason", "x"}}) {
    const Outcome outcome = Run(arguments);
    EXPECT_EQ(outcome.code, 3) << arguments[0] << " " << outcome.err;
    EXPECT_THAT(outcome.out, IsEmpty());
  }
  EXPECT_EQ(Run({"describe", "1", "--filter", "("}).code, 1);
  EXPECT_EQ(Run({"pull", "--version", "1", "--filter", "("}).code, 1);
  EXPECT_EQ(Run({"abort", "1", "--reason", "x"}).code, 1);
}

TEST_F(CliService, WaitEndsWithCode5) {
  const Outcome version = Run({"pull", "--version", "3", "--wait", "0.3"});
  EXPECT_EQ(version.code, 5) << version.err;
  EXPECT_THAT(version.err, HasSubstr("version 3 was not opened"));
  const auto push = OpenVersion(3);
  const Outcome latest = Run({"pull", "--wait", "0.3"});
  EXPECT_EQ(latest.code, 5) << latest.err;
  EXPECT_THAT(latest.err, HasSubstr("no version was committed"));
}

TEST_F(CliService, FilterPullsAPart) {
  PushTiny("1", "1");
  const std::string out = folder_.Path("part.safetensors");
  MustRun({"pull", "--filter", "layers\\.0\\.", "--out", out, "--verify-synthetic", "gemma4_tiny"});
  const auto file = SafetensorsFile::Open(out);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_FALSE((*file)->tensors().empty());
  EXPECT_LT((*file)->tensors().size(), 165u);
  for (const TensorSpec& tensor : (*file)->tensors()) EXPECT_THAT(tensor.name, HasSubstr("layers.0."));
}

TEST_F(CliService, AbortEndsPushPullAndWatch) {
  const auto push = OpenVersion(6);
  const std::string out = folder_.Path("out.safetensors");
  const auto pull = Start({"pull", "--version", "6", "--worker", "w", "--out", out});
  ASSERT_TRUE(Eventually([&] { return HasWorker("w", v1::WORKER_STATE_PULLING); }));
  const auto watch = Start({"watch", "--until", "6"});
  const Outcome aborted = Run({"abort", "6", "--reason", "trainer is stuck"});
  EXPECT_EQ(aborted.code, 0) << aborted.err;
  EXPECT_THAT(aborted.out, HasSubstr("version 6 aborted"));
  const Outcome pulled = pull->Wait();
  EXPECT_EQ(pulled.code, 1) << pulled.err;
  EXPECT_THAT(pulled.err, HasSubstr("trainer is stuck"));
  const Outcome watched = watch->Wait();
  EXPECT_EQ(watched.code, 1) << watched.err;
  EXPECT_THAT(watched.err, HasSubstr("trainer is stuck"));
  EXPECT_THAT(folder_.Names(), ElementsAre("port"));
  EXPECT_FALSE(push->Commit().ok());
  EXPECT_THAT(Run({"versions"}).out, HasSubstr("trainer is stuck"));
}

TEST_F(CliService, InterruptedPullLeavesNoFile) {
  const auto push = OpenVersion(1);
  const auto pull = Start({"pull", "--version", "1", "--worker", "w", "--out", folder_.Path("out.safetensors")});
  ASSERT_TRUE(Eventually([&] { return HasWorker("w", v1::WORKER_STATE_PULLING); }));
  pull->Signal(SIGINT);
  const Outcome outcome = pull->Wait();
  EXPECT_EQ(outcome.code, 130);
  EXPECT_THAT(outcome.err, HasSubstr("interrupted"));
  EXPECT_THAT(folder_.Names(), ElementsAre("port"));
}

TEST_F(CliService, InterruptedPushAbortsItsVersion) {
  // Large enough to be still under way: 4 GB, of which little is ever sent.
  const auto push = Start({"push", "--synthetic", "gemma4_26b_a4b", "--layers", "0", "--version", "1"});
  ASSERT_TRUE(Eventually([&] { return HasVersion(1, v1::VERSION_STATE_OPEN); }));
  push->Signal(SIGINT);
  const Outcome outcome = push->Wait();
  EXPECT_EQ(outcome.code, 130) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("version 1 is aborted"));
  EXPECT_TRUE(Eventually([&] { return HasVersion(1, v1::VERSION_STATE_ABORTED); }));
}

TEST_F(CliService, WatchesEndAsAsked) {
  const Outcome timeless = Run({"watch", "--timeout", "0.3"});
  EXPECT_EQ(timeless.code, 0) << timeless.err;
  const Outcome waiting = Run({"watch", "--fleet", "--until", "1", "--timeout", "0.3"});
  EXPECT_EQ(waiting.code, 5) << waiting.err;
  EXPECT_THAT(waiting.err, HasSubstr("version 1 is not committed"));
  PushTiny("1", "1");
  const Outcome lonely = Run({"watch", "--until", "1", "--pulls", "1", "--timeout", "0.3"});
  EXPECT_EQ(lonely.code, 5) << lonely.err;
  MustRun({"pull", "--worker", "w"});
  const Outcome fleet = Run({"watch", "--fleet", "--until", "1", "--pulls", "1", "--timeout", "30"});
  EXPECT_EQ(fleet.code, 0) << fleet.err;
  EXPECT_THAT(fleet.out, HasSubstr("worker w complete"));
  const json event = RunJson({"watch", "--until", "1"});
  EXPECT_EQ(event["version"], 1);
  const auto endless = Start({"watch", "--fleet"});
  endless->Signal(SIGINT);
  EXPECT_EQ(endless->Wait().code, 130);
}

TEST_F(CliService, PipesCarryNoEscapesAndQuietNothing) {
  const Outcome push = Run({"push", "--synthetic", "gemma4_tiny", "--version", "1"});
  EXPECT_EQ((push.out + push.err).find('\x1b'), std::string::npos);
  EXPECT_THAT(push.err, HasSubstr("push version 1: 159 native tensors"));
  EXPECT_THAT(push.out, HasSubstr("GB/s"));
  const Outcome pull = Run({"pull", "-q"});
  EXPECT_EQ(pull.code, 0);
  EXPECT_EQ(pull.out + pull.err, "");
}

}  // namespace
}  // namespace refit
