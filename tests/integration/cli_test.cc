// The command line without a service: help, usage, offline conversion, a service that is not there.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/safetensors/safetensors.h"
#include "test_paths.h"
#include "tests/integration/subprocess.h"

namespace refit {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;
using Arguments = std::vector<std::string>;

const char* const kCommands[] = {"push", "pull", "watch", "status", "versions", "describe", "abort", "convert"};

std::string GoldenPath(const std::string& name) { return std::string(REFIT_TEST_DATA) + "/golden/" + name; }

std::string Joined(const Arguments& arguments) {
  std::string text;
  for (const std::string& argument : arguments) text += argument + " ";
  return text;
}

TEST(CliHelp, ListsEveryCommandAndTheExitCodes) {
  const Outcome outcome = Refit({"--help"});
  EXPECT_EQ(outcome.code, 0);
  for (const char* command : kCommands) EXPECT_THAT(outcome.out, HasSubstr(std::string("\n  ") + command + " "));
  EXPECT_THAT(outcome.out, HasSubstr("Exit codes:"));
}

TEST(CliHelp, EveryCommandExplainsItself) {
  for (const char* command : kCommands) {
    const Outcome outcome = Refit({command, "--help"});
    EXPECT_EQ(outcome.code, 0) << command;
    EXPECT_THAT(outcome.out, HasSubstr("Examples:")) << command;
    EXPECT_THAT(outcome.out, HasSubstr("Exit codes:")) << command;
    EXPECT_THAT(outcome.out, HasSubstr("--json")) << command;
    EXPECT_THAT(outcome.err, IsEmpty()) << command;
  }
}

TEST(CliHelp, Version) {
  const Outcome outcome = Refit({"--version"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_THAT(outcome.out, StartsWith("refit "));
}

TEST(CliUsage, MistakesAreExplainedOnStderrWithCode2) {
  const Arguments mistakes[] = {
      {},
      {"pusch"},
      {"push"},
      {"push", "--synthetic"},
      {"push", "a.safetensors", "--synthetic", "gemma4_tiny"},
      {"push", "a.safetensors", "--layers", "2"},
      {"push", "a.safetensors", "--version", "0"},
      {"push", "a.safetensors", "--version", "-1"},
      {"push", "a.safetensors", "--version", "two"},
      {"push", "a.safetensors", "--dtype", "I8"},
      {"push", "a.safetensors", "--dtype", "float"},
      {"push", "--synthetic", "gemma4_tiny", "--layers", "-2"},
      {"push", "--synthetic", "gemma4_tiny", "--step", "-1"},
      {"push", "--synthetic", "gemma4_tiny", "--step", "1001"},
      {"push", "--synthetic", "gemma4_tiny", "--step", "1.5"},
      {"push", "--synthetic", "gemma4_tiny", "--step", "1", "--change", "-0.01"},
      {"push", "--synthetic", "gemma4_tiny", "--step", "1", "--change", "1.01"},
      {"push", "--synthetic", "gemma4_tiny", "--step", "1", "--change", "nan"},
      {"push", "--synthetic", "gemma4_tiny", "--step", "1", "--change", "1%"},
      {"push", "--synthetic", "gemma4_tiny", "--change", "0.01"},
      {"push", "a.safetensors", "--step", "1"},
      {"push", "--synthetic", "gemma4_tiny", "--frobnicate"},
      {"push", "a.safetensors", "--version", "1", "--rank", "0"},
      {"push", "a.safetensors", "--version", "1", "--world", "2"},
      {"push", "a.safetensors", "--rank", "0", "--world", "2"},
      {"push", "a.safetensors", "--version", "1", "--rank", "2", "--world", "2"},
      {"push", "a.safetensors", "--version", "1", "--rank", "-1", "--world", "2"},
      {"push", "a.safetensors", "--version", "1", "--rank", "0", "--world", "0"},
      {"push", "a.safetensors", "--version", "1", "--rank", "0", "--world", "4294967296"},
      {"push", "a.safetensors", "--version", "1", "--ep-size", "2"},
      {"push", "a.safetensors", "--version", "1", "--rank", "0", "--world", "4", "--ep-size", "3"},
      {"push", "a.safetensors", "--version", "1", "--rank", "0", "--world", "4", "--fsdp-size", "8"},
      {"push", "a.safetensors", "--version", "1", "--rank", "0", "--world", "4", "--tp-size", "2"},
      {"push", "a.safetensors", "--version", "1", "--rank", "0", "--world", "4", "--tp-rules", "f"},
      {"push", "a.safetensors", "--version", "1", "--rank", "0", "--world", "4", "--ep-shard-size", "0"},
      {"pull", "--ep-rank", "1"},
      {"pull", "--ep-size", "2"},
      {"pull", "--ep-rank", "2", "--ep-size", "2"},
      {"pull", "--tp-rank", "0", "--tp-size", "2"},
      {"pull", "--tp-rank", "2", "--tp-size", "2", "--tp-rules", "f"},
      {"pull", "--tp-rules", "f"},
      {"pull", "--version", "newest"},
      {"pull", "--version", "0"},
      {"pull", "--version", "18446744073709551616"},
      {"pull", "--wait", "-1"},
      {"pull", "--wait", "soon"},
      {"pull", "--wait", "nan"},
      {"pull", "--verify", "a", "--verify-synthetic", "gemma4_tiny"},
      {"pull", "--seed", "2"},
      {"pull", "--step", "1"},
      {"pull", "--verify", "a", "--step", "1"},
      {"pull", "--verify-synthetic", "gemma4_tiny", "--change", "0.01"},
      {"watch", "--until", "0"},
      {"watch", "--pulls", "2"},
      {"watch", "--timeout", "1e99"},
      {"describe"},
      {"describe", "first"},
      {"describe", "1", "tensor", "--filter", "x"},
      {"describe", "1", "--preview", "5"},
      {"describe", "1", "tensor", "--preview", "0"},
      {"abort"},
      {"abort", "3"},
      {"abort", "0", "--reason", "x"},
      {"status", "extra"},
      {"convert", "in", "out"},
      {"convert", "--to", "hf", "in"},
      {"convert", "--to", "onnx", "in", "out"},
      {"convert", "--to", "hf", "--mode", "whole", "in", "out"},
      {"convert", "--to", "hf", "--experts", "0", "in", "out"},
      {"convert", "--to", "hf", "--dtype", "F64", "in", "out"},
      {"convert", "--to", "hf", "--ep-rank", "1", "--ep-size", "2", "in", "out"},
      {"convert", "--to", "native", "--mode", "state-dict", "in", "out"},
      {"convert", "--to", "native", "--exclude-key-regex", "x", "in", "out"},
      {"convert", "--to", "native", "--ep-size", "0", "in", "out"},
  };
  for (const Arguments& arguments : mistakes) {
    const Outcome outcome = Refit(arguments);
    EXPECT_EQ(outcome.code, 2) << Joined(arguments) << outcome.err;
    EXPECT_THAT(outcome.out, IsEmpty()) << Joined(arguments);
    EXPECT_THAT(outcome.err, StartsWith("refit: usage: ")) << Joined(arguments);
  }
}

TEST(CliUsage, WhatWasMistypedIsNamed) {
  const std::pair<Arguments, std::string> mistakes[] = {
      {{"psuh", "--version", "1", "checkpoint"}, "there is no command 'psuh'; did you mean 'push'?"},
      {{"frobnicate"}, "there is no command 'frobnicate'\n"},
      {{"help", "statsu"}, "there is no command 'statsu'; did you mean 'status'?"},
      {{"push", "--versoin", "3"}, "refit push has no option '--versoin'; did you mean '--version'?"},
      {{"status", "extra"}, "'extra' is more than refit status takes"},
      {{}, "a command is missing"},
  };
  for (const auto& [arguments, expected] : mistakes) {
    const Outcome outcome = Refit(arguments);
    EXPECT_EQ(outcome.code, 2) << Joined(arguments) << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr(expected)) << Joined(arguments);
  }
}

TEST(CliUsage, HelpIsACommandToo) {
  for (const auto& [long_way, short_way] : {std::pair<Arguments, Arguments>{{"--help"}, {"help"}},
                                            {{"push", "--help"}, {"help", "push"}},
                                            {{"certs", "--help"}, {"help", "certs"}}}) {
    const Outcome outcome = Refit(short_way);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_EQ(outcome.out, Refit(long_way).out);
    EXPECT_THAT(outcome.out, Not(IsEmpty()));
  }
}

TEST(CliUsage, AnAddressThatLeadsNowhereIsOneAtOnce) {
  for (const auto& [address, why] : {std::pair<std::string, std::string>{"127.0.0.1:99999", "port 99999"},
                                     {"localhost", "names no port"},
                                     {"http://localhost:50051", "is a URL"},
                                     {"::1:50051", "brackets"},
                                     {"unix:", "no path"}}) {
    for (const char* command : {"status", "versions", "watch", "follow", "pull"}) {
      const Outcome outcome = Refit({command, "-s", address});
      EXPECT_EQ(outcome.code, 2) << command << " " << outcome.err;
      EXPECT_THAT(outcome.err, AllOf(StartsWith("refit: usage: "), HasSubstr(why), HasSubstr(address)));
    }
  }
}

TEST(CliUnreachable, EveryCommandSaysSoWithCode4) {
  const Arguments commands[] = {
      {"push", "--synthetic", "gemma4_tiny", "--version", "1"},
      {"push", "--synthetic", "gemma4_tiny"},
      {"pull"},
      {"pull", "--wait", "0.2"},
      {"watch"},
      {"watch", "--fleet"},
      {"status"},
      {"versions"},
      {"describe", "latest"},
      {"abort", "1", "--reason", "x"},
  };
  for (Arguments arguments : commands) {
    // Port 1 is privileged and unused.
    arguments.insert(arguments.end(), {"--server", "127.0.0.1:1", "--connect-timeout", "0.2"});
    const Outcome outcome = Refit(arguments);
    EXPECT_EQ(outcome.code, 4) << Joined(arguments) << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr("127.0.0.1:1")) << Joined(arguments);
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
  }
}

TEST(CliPush, BadSourcesAreNamedBeforeTheServiceIsAsked) {
  const Outcome missing = Refit({"push", "/nowhere/native.safetensors", "--server", "127.0.0.1:1"});
  EXPECT_EQ(missing.code, 3) << missing.err;
  EXPECT_THAT(missing.err, HasSubstr("/nowhere/native.safetensors"));
  const Outcome unknown = Refit({"push", "--synthetic", "gpt5", "--server", "127.0.0.1:1"});
  EXPECT_EQ(unknown.code, 3) << unknown.err;
  EXPECT_THAT(unknown.err, HasSubstr("gemma4_26b_a4b"));
}

TEST(CliPush, FilesOfShardsGoAsTheyAre) {
  const TemporaryFolder folder;
  const std::string file = folder.Path("rank0.safetensors");
  const auto write = [&](const std::string& shards) {
    auto writer = SafetensorsWriter::Create(file, {{"model.norm.weight", DType::kU8, {0}}}, {{"refit.shards", shards}});
    ASSERT_TRUE(writer.ok()) << writer.status();
    ASSERT_TRUE((*writer)->Commit().ok());
  };
  write(R"({"model.norm.weight": {"shape": [4], "offsets": [2]}})");
  const Arguments mistakes[] = {{}, {"--rank", "0", "--world", "2", "--version", "1", "--ep-size", "2"}};
  for (Arguments arguments : mistakes) {
    arguments.insert(arguments.begin(), {"push", file, "--server", "127.0.0.1:1"});
    const Outcome outcome = Refit(arguments);
    EXPECT_EQ(outcome.code, 2) << Joined(arguments) << outcome.err;
    EXPECT_THAT(outcome.err, StartsWith("refit: usage: ")) << Joined(arguments);
    EXPECT_THAT(outcome.err, HasSubstr(file)) << Joined(arguments);
  }
  write(R"({"model.norm.weight": {"shape": [4], "offsets": [5]}})");
  const Outcome bad = Refit({"push", file, "--rank", "0", "--world", "2", "--version", "1"});
  EXPECT_EQ(bad.code, 1);
  EXPECT_THAT(bad.err, HasSubstr(file));
  EXPECT_THAT(bad.err, HasSubstr("model.norm.weight"));
}

TEST(CliRules, BadFilesAreNamedBeforeTheServiceIsAsked) {
  const TemporaryFolder folder;
  const std::string rules = folder.Path("rules.txt");
  const Arguments commands[] = {
      {"push", "--synthetic", "gemma4_tiny", "--version", "1", "--rank", "0", "--world", "2", "--tp-size", "2"},
      {"pull", "--tp-rank", "0", "--tp-size", "2"}};
  for (Arguments arguments : commands) {
    arguments.insert(arguments.end(), {"--tp-rules", rules, "--server", "127.0.0.1:1"});
    std::remove(rules.c_str());
    const Outcome missing = Refit(arguments);
    EXPECT_EQ(missing.code, 3) << missing.err;
    EXPECT_THAT(missing.err, HasSubstr(rules));
    std::ofstream(rules) << "0 a\n\nx b\n";
    const Outcome bad = Refit(arguments);
    EXPECT_EQ(bad.code, 1) << bad.err;
    EXPECT_THAT(bad.err, HasSubstr(rules + ", line 3: "));
  }
}

// ---- convert

struct GoldenCase {
  std::string id;
  Arguments arguments;   // without the output
  std::string expected;  // empty: an error is
};

std::vector<GoldenCase> GoldenCases() {
  std::ifstream file(GoldenPath("cases.json"));
  std::vector<GoldenCase> cases;
  for (const nlohmann::json& item : nlohmann::json::parse(file)) {
    const nlohmann::json& args = item["args"];
    const std::string op = item["op"];
    GoldenCase golden{item["id"], {"convert", "--to", op == "from_hf" ? "native" : "hf"}, ""};
    const auto add = [&](const std::string& option, const std::string& value) {
      golden.arguments.insert(golden.arguments.end(), {option, value});
    };
    if (op != "from_hf") add("--mode", op == "to_hf" ? "state-dict" : "per-tensor");
    add("--experts", std::to_string(args["n_experts"].get<int>()));
    add("--dtype", args["dtype"]);
    if (args.contains("exclude_key_regex")) add("--exclude-key-regex", args["exclude_key_regex"]);
    if (args.contains("ep_rank")) {
      for (const char* key : {"ep_rank", "ep_size", "ep_shard_rank", "ep_shard_size"}) {
        std::string option = std::string("--") + key;
        std::replace(option.begin(), option.end(), '_', '-');
        add(option, std::to_string(args[key].get<int>()));
      }
    }
    golden.arguments.push_back(GoldenPath(item["input"]));
    if (item.contains("output")) golden.expected = GoldenPath(item["output"]);
    cases.push_back(golden);
  }
  return cases;
}

class CliConvert : public ::testing::TestWithParam<GoldenCase> {};

TEST_P(CliConvert, GivesTheGoldenBytes) {
  const TemporaryFolder folder;
  const std::string out = folder.Path("out.safetensors");
  Arguments arguments = GetParam().arguments;
  arguments.push_back(out);
  const Outcome outcome = Refit(arguments);
  if (GetParam().expected.empty()) {
    EXPECT_EQ(outcome.code, 1);
    EXPECT_THAT(outcome.err, StartsWith("refit: convert: "));
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
    EXPECT_THAT(outcome.out, IsEmpty());
    EXPECT_THAT(folder.Names(), IsEmpty());
    return;
  }
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const auto made = SafetensorsFile::Open(out);
  const auto expected = SafetensorsFile::Open(GetParam().expected);
  ASSERT_TRUE(made.ok()) << made.status();
  ASSERT_TRUE(expected.ok()) << expected.status();
  ASSERT_EQ((*made)->tensors().size(), (*expected)->tensors().size());
  for (size_t i = 0; i < (*made)->tensors().size(); ++i) {
    // The golden files are written by another writer, which may order tensors in its own way.
    const auto& all = (*expected)->tensors();
    const auto found = std::find(all.begin(), all.end(), (*made)->tensors()[i]);
    ASSERT_NE(found, all.end()) << (*made)->tensors()[i].ToString();
    EXPECT_EQ((*made)->data(i), (*expected)->data(static_cast<size_t>(found - all.begin()))) << found->name;
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, CliConvert, ::testing::ValuesIn(GoldenCases()),
                         [](const auto& instance) { return instance.param.id; });

TEST(CliConvertErrors, AreOneLineWithCode1AndLeaveNoFile) {
  const TemporaryFolder folder;
  const std::string in = GoldenPath("g_convert_0.in.safetensors");
  const std::string out = folder.Path("out.safetensors");
  const std::string garbage = folder.Path("garbage.safetensors");
  std::ofstream(garbage) << "not a safetensors file";
  const Arguments errors[] = {
      {"/nowhere.safetensors", out},
      {garbage, out},
      {in, "/nowhere/out.safetensors"},
      {in, out, "--exclude-key-regex", "("},
      {in, out, "--exclude-key-regex", "(?=x)"},
  };
  for (Arguments arguments : errors) {
    arguments.insert(arguments.begin(), {"convert", "--to", "hf"});
    const Outcome outcome = Refit(arguments);
    EXPECT_EQ(outcome.code, 1) << Joined(arguments) << outcome.err;
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
    EXPECT_THAT(folder.Names(), ::testing::ElementsAre("garbage.safetensors")) << Joined(arguments);
  }
}

// Runs it with this file as stdout.
Outcome RefitInto(const std::string& file, const Arguments& arguments) {
  const int out = open(file.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  Subprocess::Surroundings surroundings;
  surroundings.out = out;
  Outcome outcome = Subprocess::Start("refit", arguments, surroundings)->Wait();
  close(out);
  return outcome;
}

TEST(CliOutput, ThatCannotBeWrittenIsAnError) {
  const TemporaryFolder folder;
  const std::string in = GoldenPath("g_convert_0.in.safetensors");
  const Arguments commands[] = {{"--help"},
                                {"--version"},
                                {"convert", "--to", "hf", in, folder.Path("a")},
                                {"convert", "--to", "hf", "--json", in, folder.Path("b")},
                                {"convert", "--to", "hf", in, "-"},
                                {"convert", "--to", "hf", in, "/dev/full"}};
  for (const Arguments& arguments : commands) {
    const Outcome outcome = RefitInto("/dev/full", arguments);
    EXPECT_EQ(outcome.code, 1) << Joined(arguments);
    EXPECT_THAT(outcome.err, ::testing::ContainsRegex("cannot write .*No space left|could not be written"))
        << Joined(arguments);
  }
}

TEST(CliConvertOutput, DashIsStdoutAndTheReportGoesToStderr) {
  const TemporaryFolder folder;
  const std::string in = GoldenPath("g_convert_0.in.safetensors");
  const Outcome streamed = RefitInto(folder.Path("streamed"), {"convert", "--to", "hf", "--json", in, "-"});
  ASSERT_EQ(streamed.code, 0) << streamed.err;
  EXPECT_EQ(nlohmann::json::parse(streamed.err)["tensors"], 18);
  ASSERT_EQ(Refit({"convert", "--to", "hf", in, folder.Path("file")}).code, 0);
  EXPECT_EQ(ReadFile(folder.Path("streamed")), ReadFile(folder.Path("file")));
}

TEST(CliConvertErrors, WhatCanBeNoFileIsWrongUsage) {
  const TemporaryFolder folder;
  const std::string in = GoldenPath("g_convert_0.in.safetensors");
  EXPECT_EQ(Refit({"convert", "--to", "hf", in, folder.Path("")}).code, 2);
  ASSERT_EQ(mkfifo(folder.Path("pipe").c_str(), 0600), 0);
  const Outcome unread = Refit({"convert", "--to", "hf", in, folder.Path("pipe")});
  EXPECT_EQ(unread.code, 1);
  EXPECT_THAT(unread.err, HasSubstr("nobody reads it"));
  EXPECT_EQ(Refit({"follow", "--out", folder.Path("pipe")}).code, 2);
  EXPECT_TRUE(std::filesystem::is_fifo(folder.Path("pipe")));
}

TEST(CliConvertErrors, LeaveAnOlderFileAlone) {
  const TemporaryFolder folder;
  const std::string out = folder.Path("out.safetensors");
  std::ofstream(out) << "precious";
  EXPECT_EQ(Refit({"convert", "--to", "hf", GoldenPath("g_convert_nolayer5.in.safetensors"), out}).code, 1);
  EXPECT_EQ(ReadFile(out), "precious");
}

TEST(CliConvertOutput, JsonIsAllThatStdoutHolds) {
  const TemporaryFolder folder;
  const Outcome outcome = Refit(
      {"convert", "--to", "hf", "--json", GoldenPath("g_convert_0.in.safetensors"), folder.Path("out.safetensors")});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(nlohmann::json::parse(outcome.out)["tensors"], 18);
}

TEST(CliConvertOutput, QuietSaysNothing) {
  const TemporaryFolder folder;
  const Outcome outcome =
      Refit({"convert", "--to", "hf", "-q", GoldenPath("g_convert_0.in.safetensors"), folder.Path("out.safetensors")});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.out + outcome.err, "");
}

}  // namespace
}  // namespace refit
