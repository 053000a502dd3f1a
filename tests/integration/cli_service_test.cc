// The command line against a real service.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/native/native_source.h"
#include "client/native/shard_source.h"
#include "common/safetensors/safetensors.h"
#include "common/safetensors/shard_metadata.h"
#include "refit/inspector.h"
#include "refit/mesh.h"
#include "refit/publisher.h"
#include "test_paths.h"
#include "tests/integration/subprocess.h"
#include "tests/support/eventually.h"

namespace refit {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Arguments = std::vector<std::string>;

std::string GoldenPath(const std::string& name) { return std::string(REFIT_TEST_DATA) + "/golden/" + name; }

Arguments operator+(Arguments a, const Arguments& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
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
  const Outcome pushed = Run(Arguments{"push", "--json", "--synthetic"} + native);
  ASSERT_EQ(pushed.code, 0) << pushed.err;
  const json report = json::parse(pushed.out);
  EXPECT_EQ(report["version"]["received_bytes"].get<uint64_t>() * 2, report["native_bytes"].get<uint64_t>());
  const Outcome outcome = Run(Arguments{"pull", "--json", "--verify-synthetic"} + native);
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_TRUE(json::parse(outcome.out)["verified"]);
  // Without the cast the expected dtypes are others.
  EXPECT_EQ(Run({"pull", "--verify-synthetic", "gemma4_tiny", "--synthetic-dtype", "F32", "--seed", "3"}).code, 6);
}

// A checkpoint of F32 masters of any bits, NaNs and subnormal numbers among them.
TEST_F(CliService, MastersInAFileAreCastAsLibTorchDoes) {
  const std::string native = folder_.Path("masters.safetensors");
  const TensorSpec spec{"model.language_model.layers.0.moe.experts.down_projs", DType::kF32, {4, 30, 50}};
  std::vector<std::byte> values(spec.ByteSize());
  std::mt19937 random(5);
  for (std::byte& byte : values) byte = static_cast<std::byte>(random());
  {
    auto writer = SafetensorsWriter::Create(native, {spec});
    ASSERT_TRUE(writer.ok()) << writer.status();
    ASSERT_TRUE((*writer)->WriteAt(0, 0, values).ok());
    ASSERT_TRUE((*writer)->Commit().ok());
  }
  for (const char* const dtype : {"BF16", "F16", "F32", "F64"}) {
    MustRun({"push", native, "--dtype", dtype});
    MustRun({"pull", "--verify", native, "--dtype", dtype});
  }
}

TEST_F(CliService, WhatKeepsItsDTypeIsVerifiedToo) {
  const Arguments native = {"gemma4_tiny",
                            "--synthetic-dtype",
                            "F32",
                            "--seed",
                            "3",
                            "--dtype",
                            "BF16",
                            "--keep-dtype-regex",
                            ".*moe\\.gate\\.scale|.*norm.*"};
  Arguments push = {"push", "--synthetic"};
  push.insert(push.end(), native.begin(), native.end());
  MustRun(push);
  Arguments pull = {"pull", "--json", "--verify-synthetic"};
  pull.insert(pull.end(), native.begin(), native.end());
  const Outcome outcome = Run(pull);
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_TRUE(json::parse(outcome.out)["verified"]);
  // Cast altogether, it would be another version.
  EXPECT_EQ(
      Run({"pull", "--verify-synthetic", "gemma4_tiny", "--synthetic-dtype", "F32", "--seed", "3", "--dtype", "BF16"})
          .code,
      6);
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

TEST_F(CliService, ASyntheticStepIsVerifiedAsThatStepOnly) {
  MustRun({"push", "--synthetic", "gemma4_tiny", "--step", "1", "--change", "0.01"});
  const Arguments pull = {"pull", "--verify-synthetic", "gemma4_tiny"};
  MustRun(pull + Arguments{"--step", "1", "--change", "0.01"});
  for (const Arguments& other :
       {Arguments{}, {"--step", "2", "--change", "0.01"}, {"--step", "1", "--change", "0.02"}}) {
    const Outcome outcome = Run(pull + other);
    EXPECT_EQ(outcome.code, 6);
    EXPECT_THAT(outcome.err, HasSubstr("element ["));
  }
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
  EXPECT_EQ(Run({"versions", "--model", "other"}).code, 3);

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
                                                           {"describe", "1", "--filter", "no such"},
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

// Whether a process takes this signal itself, as /proc shows it: an orderly end is prepared.
bool Blocks(pid_t pid, int signal) {
  std::ifstream status(absl::StrCat("/proc/", pid, "/status"));
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("SigBlk:", 0) == 0) return (std::stoull(line.substr(7), nullptr, 16) >> (signal - 1)) % 2 == 1;
  }
  return false;
}

TEST_F(CliService, WaitsEndWithTheirSignals) {
  for (const int signal : {SIGINT, SIGTERM}) {
    for (const std::vector<std::string>& waiting :
         {std::vector<std::string>{"follow", "--worker", "w"}, {"await", "7", "--timeout", "60"}, {"watch"}}) {
      const auto command = Start(waiting);
      ASSERT_TRUE(Eventually([&] { return Blocks(command->pid(), signal); }));
      command->Signal(signal);
      const Outcome outcome = command->Wait(std::chrono::seconds(10));
      EXPECT_EQ(outcome.code, 130) << waiting.front() << " " << outcome.err;
      EXPECT_THAT(outcome.err, HasSubstr("interrupted")) << waiting.front();
    }
  }
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

// ---- several ranks, and parts

class CliRanks : public CliService {
 protected:
  static Arguments RankOptions(int rank, int world) {
    return {"--version", "1", "--rank", std::to_string(rank), "--world", std::to_string(world)};
  }

  // All ranks at once; `arguments` gives what each pushes. What they said, in JSON.
  std::vector<json> PushRanks(int world, const std::function<Arguments(int)>& arguments) const {
    std::vector<std::unique_ptr<Subprocess>> ranks;
    ranks.reserve(world);
    for (int rank = 0; rank < world; ++rank) {
      ranks.push_back(Start(Arguments{"push", "--json"} + RankOptions(rank, world) + arguments(rank)));
    }
    std::vector<json> reports;
    for (const auto& rank : ranks) {
      const Outcome outcome = rank->Wait();
      EXPECT_EQ(outcome.code, 0) << outcome.err;
      reports.push_back(outcome.code == 0 ? json::parse(outcome.out) : json());
    }
    return reports;
  }

  std::vector<json> PushTinyMesh() const {
    const Arguments mesh = {"--synthetic", "gemma4_tiny", "--ep-size", "2", "--ep-shard-size", "2", "--fsdp-size", "4"};
    return PushRanks(4, [&](int) { return mesh; });
  }
};

// A checkpoint is mapped: its bytes are looked at when they are read, long after it was opened.
TEST_F(CliRanks, ACheckpointThatIsCutMeanwhileIsAnErrorAndNoSignal) {
  const std::vector<std::byte> bytes(1 << 20);
  const std::vector<std::string> paths = {folder_.Path("a.safetensors"), folder_.Path("b.safetensors")};
  for (const std::string& path : paths) {
    auto writer = SafetensorsWriter::Create(path, {{"a", DType::kU8, {1 << 20}}, {"b", DType::kU8, {1 << 20}}});
    ASSERT_TRUE(writer.ok()) << writer.status();
    for (const size_t tensor : {0, 1}) ASSERT_TRUE((*writer)->WriteAt(tensor, 0, bytes).ok());
    ASSERT_TRUE((*writer)->Commit().ok());
  }
  const auto start = [&](int rank) { return Start(Arguments{"push", paths[rank]} + RankOptions(rank, 2)); };
  const auto first = start(0);
  const auto joined = [&] {
    auto inspector = Inspector::Connect(Channel());
    const auto known = inspector.ok() ? (*inspector)->Versions() : inspector.status();
    return known.ok() && known->versions_size() == 1 && known->versions(0).joined_ranks() == 1;
  };
  ASSERT_TRUE(Eventually(joined)) << first->Err();
  std::filesystem::resize_file(paths[0], 4096);
  const auto second = start(1);
  const Outcome outcome = first->Wait();
  EXPECT_EQ(outcome.code, 1) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("truncated"));
  EXPECT_NE(second->Wait().code, 0);
}

using Bytes = std::vector<std::byte>;

// Puts the parts that files hold together.
std::map<std::string, Bytes> Assemble(const std::vector<std::string>& paths) {
  std::map<std::string, Bytes> whole;
  for (const std::string& path : paths) {
    const auto checkpoint = Checkpoint::Open(path);
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
    const auto shards = ReadShards(**checkpoint);
    EXPECT_TRUE(shards.ok()) << shards.status();
    EXPECT_TRUE(shards->has_value()) << path;
    for (const FileShard& shard : **shards) {
      const TensorSpec& tensor = shard.part.tensor;
      const auto size = static_cast<int64_t>(ElementSize(tensor.dtype));
      Bytes& bytes = whole[tensor.name];
      bytes.resize(tensor.ByteSize());
      const std::byte* from = (*checkpoint)->data(*shard.index).data();
      BoxRuns(tensor.shape, shard.part.box).ForEach(0, ElementCount(shard.part.box), [&](int64_t place, int64_t count) {
        std::copy_n(from, count * size, bytes.begin() + place * size);
        from += count * size;
      });
    }
  }
  return whole;
}

std::map<std::string, Bytes> ReadTensors(const std::string& path) {
  const auto file = SafetensorsFile::Open(path);
  EXPECT_TRUE(file.ok()) << file.status();
  std::map<std::string, Bytes> tensors;
  for (size_t i = 0; i < (*file)->tensors().size(); ++i) {
    const auto data = (*file)->data(i);
    tensors[(*file)->tensors()[i].name] = Bytes(data.begin(), data.end());
  }
  return tensors;
}

TEST_F(CliRanks, PushTogetherWhatOneWouldAlone) {
  const std::vector<json> reports = PushTinyMesh();
  uint64_t sent = 0;
  for (size_t rank = 0; rank < reports.size(); ++rank) {
    EXPECT_EQ(reports[rank]["rank"], rank);
    EXPECT_EQ(reports[rank]["world"], 4);
    EXPECT_EQ(reports[rank]["native_tensors"], 159);
    sent += reports[rank]["native_bytes"].get<uint64_t>() - reports[rank]["digest_only_bytes"].get<uint64_t>();
  }
  MustRun({"pull", "--verify-synthetic", "gemma4_tiny"});
  const json version = RunJson({"versions"})["versions"][0];
  EXPECT_EQ(version["world"], 4);
  EXPECT_EQ(version["joined_ranks"], 4);
  EXPECT_EQ(version["committed_ranks"], 4);
  EXPECT_THAT(Run({"versions"}).out, HasSubstr("ranks"));
  EXPECT_THAT(Run({"status"}).out, HasSubstr("ranks"));
  EXPECT_THAT(Run({"describe", "1"}).out, HasSubstr("ranks"));
  const json alone = RunJson({"push", "--synthetic", "gemma4_tiny", "--version", "2"});
  EXPECT_EQ(alone["version"]["manifest_digest"], version["manifest_digest"]);
  EXPECT_EQ(alone["native_bytes"], sent);
  EXPECT_FALSE(alone.contains("rank"));
}

TEST_F(CliRanks, ReplicasSendOnce) {
  const std::vector<json> reports = PushRanks(2, [](int) { return Arguments{"--synthetic", "gemma4_tiny"}; });
  EXPECT_EQ(reports[0]["native_bytes"], reports[1]["native_bytes"]);
  EXPECT_EQ(reports[0]["digest_only_bytes"].get<uint64_t>() + reports[1]["digest_only_bytes"].get<uint64_t>(),
            reports[0]["native_bytes"].get<uint64_t>());
  MustRun({"pull", "--verify-synthetic", "gemma4_tiny"});
}

TEST_F(CliRanks, TensorParallelRanksPushByRules) {
  const std::string rules = folder_.Path("rules.txt");
  std::ofstream(rules) << "1 \\.o_proj\\.weight$  # columns\n0 \\.[qkv]_proj\\.weight$\n";
  const std::vector<json> reports = PushRanks(4, [&](int) {
    return Arguments{"--synthetic", "gemma4_tiny", "--tp-size", "2", "--tp-rules", rules, "--fsdp-size", "2"};
  });
  EXPECT_EQ(reports.size(), 4u);
  MustRun({"pull", "--verify-synthetic", "gemma4_tiny"});
}

TEST_F(CliRanks, ExpertPartsMakeTheWhole) {
  PushTinyMesh();
  const std::string whole = folder_.Path("whole.safetensors");
  MustRun({"pull", "--out", whole});
  std::vector<std::string> parts;
  for (const char* rank : {"0", "1", "2"}) {
    parts.push_back(folder_.Path(std::string("part") + rank + ".safetensors"));
    const Outcome outcome =
        Run({"pull", "--ep-rank", rank, "--ep-size", "3", "--out", parts.back(), "--verify-synthetic", "gemma4_tiny"});
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_THAT(outcome.out, HasSubstr(std::string("experts ") + rank + " of 3"));
  }
  EXPECT_EQ(Assemble(parts), ReadTensors(whole));
  const json report = RunJson({"pull", "--ep-rank", "1", "--ep-size", "3"});
  EXPECT_EQ(report["ep_rank"], 1);
  EXPECT_EQ(report["tensors"], 165);
  EXPECT_LT(report["bytes"], report["version"]["bytes"]);
}

TEST_F(CliRanks, TensorParallelPartsMakeTheWhole) {
  PushTiny("1", "1");
  const std::string rules = std::string(REFIT_TEST_DATA) + "/../../deploy/examples/gemma4_tp_rules.txt";
  const std::string whole = folder_.Path("whole.safetensors");
  MustRun({"pull", "--out", whole});
  std::vector<std::string> parts;
  for (const char* ep : {"0", "1"}) {
    for (const char* tp : {"0", "1"}) {
      parts.push_back(folder_.Path(std::string("part") + ep + tp + ".safetensors"));
      const Outcome outcome = Run({"pull", "--ep-rank", ep, "--ep-size", "2", "--tp-rank", tp, "--tp-size", "2",
                                   "--tp-rules", rules, "--out", parts.back(), "--verify-synthetic", "gemma4_tiny"});
      EXPECT_EQ(outcome.code, 0) << outcome.err;
      EXPECT_THAT(outcome.out, HasSubstr(std::string("tensor-parallel part ") + tp + " of 2"));
    }
  }
  EXPECT_EQ(Assemble(parts), ReadTensors(whole));
  // Other values are found in a part too.
  EXPECT_EQ(Run({"pull", "--ep-rank", "1", "--ep-size", "2", "--verify-synthetic", "gemma4_tiny", "--seed", "2"}).code,
            6);
}

TEST_F(CliRanks, RulesThatApplyToNothingAreCode3) {
  PushTiny("1", "1");
  const std::string rules = folder_.Path("rules.txt");
  std::ofstream(rules) << "0 no_such_tensor\n";
  const Outcome outcome = Run({"pull", "--tp-rank", "0", "--tp-size", "2", "--tp-rules", rules});
  EXPECT_EQ(outcome.code, 3) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("no_such_tensor"));
}

// What one rank of the mesh would save. With `sparse`, what it has nothing of is not in the file.
void WriteShards(const std::string& path, const Mesh& mesh, uint32_t rank, bool sparse) {
  const auto source = OpenSyntheticSource({.model = "gemma4_tiny"});
  ASSERT_TRUE(source.ok()) << source.status();
  const auto rules = RulesOfRank(mesh, rank);
  ASSERT_TRUE(rules.ok()) << rules.status();
  auto shards = ShardsOf(*rules, "", (*source)->tensors());
  ASSERT_TRUE(shards.ok()) << shards.status();
  const auto cut = ShardSource::Cut(*source, *shards);
  ASSERT_TRUE(cut.ok()) << cut.status();
  const auto metadata = FormatShardMetadata(*shards);
  ASSERT_TRUE(metadata.ok()) << metadata.status();
  std::vector<TensorSpec> specs;
  std::vector<size_t> indices;
  for (size_t i = 0; i < shards->size(); ++i) {
    if (sparse && (*shards)[i].ByteSize() == 0) continue;
    specs.push_back((*shards)[i].spec());
    indices.push_back(i);
  }
  auto writer = SafetensorsWriter::Create(path, specs, {{kShardsKey, *metadata}});
  ASSERT_TRUE(writer.ok()) << writer.status();
  for (size_t i = 0; i < specs.size(); ++i) {
    Bytes scratch(specs[i].ByteSize());
    ASSERT_TRUE((*writer)->WriteAt(i, 0, (*cut)->Read(indices[i], 0, scratch.size(), absl::MakeSpan(scratch))).ok());
  }
  ASSERT_TRUE((*writer)->Commit().ok());
}

TEST_F(CliRanks, FilesOfShardsArePushedAsTheyAre) {
  Mesh mesh;
  mesh.world = 4;
  mesh.ep_size = 2;
  mesh.ep_shard_size = 2;
  mesh.fsdp_size = 4;
  const auto path = [&](int rank) { return folder_.Path("rank" + std::to_string(rank) + ".safetensors"); };
  for (int rank = 0; rank < 4; ++rank) WriteShards(path(rank), mesh, static_cast<uint32_t>(rank), rank % 2 == 0);
  PushRanks(4, [&](int rank) { return Arguments{path(rank)}; });
  MustRun({"pull", "--verify-synthetic", "gemma4_tiny"});
}

TEST_F(CliRanks, ARankThatWaitsSaysSoAndCanBeInterrupted) {
  const auto push = Start(Arguments{"push", "--synthetic", "gemma4_tiny", "--fsdp-size", "2"} + RankOptions(1, 2));
  ASSERT_TRUE(Eventually([&] { return push->Err().find("waiting for rank 0") != std::string::npos; })) << push->Err();
  EXPECT_THAT(Run({"versions"}).out, HasSubstr("1/2 joined"));
  push->Signal(SIGINT);
  const Outcome outcome = push->Wait();
  EXPECT_EQ(outcome.code, 130) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("version 1 is aborted"));
  EXPECT_TRUE(Eventually([&] { return HasVersion(1, v1::VERSION_STATE_ABORTED); }));
}

TEST_F(CliRanks, ARankThatDiesEndsTheOthers) {
  std::vector<std::unique_ptr<Subprocess>> ranks;
  for (const int rank : {0, 1}) {
    ranks.push_back(Start(Arguments{"push", "--synthetic", "gemma4_tiny", "--fsdp-size", "3"} + RankOptions(rank, 3)));
  }
  ASSERT_TRUE(Eventually(
      [&] { return RunJson({"versions"})["versions"].dump().find("\"joined_ranks\":2") != std::string::npos; }));
  ranks[0]->Signal(SIGKILL);
  const Outcome outcome = ranks[1]->Wait();
  EXPECT_EQ(outcome.code, 1) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("rank 0"));
  EXPECT_TRUE(HasVersion(1, v1::VERSION_STATE_ABORTED));
}

TEST_F(CliRanks, ARankKilledAmidItsBytesEndsTheOthersAndTheNextVersionIsWhole) {
  // A gigabyte: it is still under way when the kill comes.
  const Arguments large = {"--synthetic",
                           "gemma4_26b_a4b",
                           "--layers",
                           "1",
                           "--ep-size",
                           "2",
                           "--exclude-key-regex",
                           ".*(embed|vision|lm_head|down_projs)"};
  std::vector<std::unique_ptr<Subprocess>> ranks;
  for (const int rank : {0, 1}) ranks.push_back(Start(Arguments{"push"} + large + RankOptions(rank, 2)));
  ASSERT_TRUE(Eventually(
      [&] { return RunJson({"versions"})["versions"].dump().find("\"joined_ranks\":2") != std::string::npos; }));
  ASSERT_TRUE(HasVersion(1, v1::VERSION_STATE_OPEN));
  ranks[0]->Signal(SIGKILL);
  const Outcome outcome = ranks[1]->Wait(std::chrono::seconds(10));
  EXPECT_EQ(outcome.code, 1) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("rank 0"));
  EXPECT_TRUE(HasVersion(1, v1::VERSION_STATE_ABORTED));

  PushTiny("2", "5");
  MustRun({"pull", "--version", "2", "--verify-synthetic", "gemma4_tiny", "--seed", "5"});
}

}  // namespace
}  // namespace refit
