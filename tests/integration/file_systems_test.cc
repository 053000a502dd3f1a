// Files on file systems that lack a call, and pulls that are killed: what is there afterwards, and what the exit code
// says.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/safetensors/safetensors.h"
#include "refit/publisher.h"
#include "tests/integration/service_process.h"
#include "tests/integration/subprocess.h"
#include "tests/support/eventually.h"

namespace refit {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

const std::vector<TensorSpec> kSpecs = {{"model.norm.weight", DType::kU8, {4}}};

class FileSystems : public ::testing::Test {
 protected:
  FileSystems() { std::filesystem::create_directory(folder_.Path("out")); }

  void SetUp() override {
    Write(Native());
    ASSERT_EQ(Run("", {"push", "--version", "1", Native()}).code, 0);
  }

  std::string Native() const { return folder_.Path("native.safetensors"); }
  std::string Out() const { return folder_.Path("out/f.safetensors"); }

  static void Write(const std::string& path) {
    auto writer = SafetensorsWriter::Create(path, kSpecs);
    ASSERT_TRUE(writer.ok()) << writer.status();
    const std::byte bytes[] = {std::byte{1}, std::byte{2}, std::byte{3}, std::byte{4}};
    ASSERT_TRUE((*writer)->WriteAt(0, 0, bytes).ok() && (*writer)->Commit().ok());
  }

  // On file systems without these calls.
  std::unique_ptr<Subprocess> Start(const std::string& lacks, std::vector<std::string> arguments) const {
    arguments.insert(arguments.end(), {"--server", service_.address()});
    return Subprocess::Start(
        "refit", arguments,
        {.by = {"env", absl::StrCat("LD_PRELOAD=", REFIT_POOR_FILE_SYSTEM), absl::StrCat("POOR_FILE_SYSTEM=", lacks)}});
  }
  Outcome Run(const std::string& lacks, const std::vector<std::string>& arguments) const {
    return Start(lacks, arguments)->Wait();
  }
  Outcome Pull(const std::string& lacks) const { return Run(lacks, {"pull", "--out", Out()}); }

  std::vector<std::string> OtherFiles() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder_.Path("out"))) {
      if (entry.path() != Out()) names.push_back(entry.path().filename());
    }
    return names;
  }

  void ExpectWhole() const {
    const auto file = SafetensorsFile::Open(Out());
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_EQ((*file)->tensors(), kSpecs);
    EXPECT_THAT(OtherFiles(), IsEmpty());
  }

  // A version that is being pushed: who pulls it waits, its file begun.
  std::unique_ptr<VersionPush> OpenVersion(uint64_t version) const {
    auto publisher = Publisher::Connect(service_.Channel());
    EXPECT_TRUE(publisher.ok()) << publisher.status();
    PublishOptions options;
    options.version = version;
    auto push = (*publisher)->Open(options, kSpecs);
    EXPECT_TRUE(push.ok()) << push.status();
    return *std::move(push);
  }

  // Of a pull that waits, killed.
  void KillAPull(const std::string& lacks) const {
    const auto pull = Start(lacks, {"pull", "--version", "2", "--out", Out()});
    ASSERT_TRUE(Eventually([&] { return absl::StrContains(pull->Err(), "version 2"); })) << pull->Err();
    if (absl::StrContains(lacks, "tmpfile")) {
      ASSERT_TRUE(Eventually([&] { return !OtherFiles().empty(); }));
    }
    pull->Signal(SIGKILL);
    EXPECT_EQ(pull->Wait().code, 128 + SIGKILL);
  }

  TemporaryFolder folder_;
  ServiceProcess service_;
};

TEST_F(FileSystems, WithoutNamelessFilesOrLocksAllIsWell) {
  for (const char* lacks : {"", "tmpfile", "linkat", "tmpfile flock", "fchmod", "tmpfile fchmod"}) {
    const Outcome outcome = Pull(lacks);
    EXPECT_EQ(outcome.code, 0) << lacks << outcome.err;
    EXPECT_THAT(outcome.err, Not(HasSubstr("warning"))) << lacks;
    ExpectWhole();
  }
}

TEST_F(FileSystems, WithoutFlushingThereIsAWarning) {
  const Outcome outcome = Pull("fsync");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("could not be flushed"));
  ExpectWhole();
}

TEST_F(FileSystems, WithoutRenamingTheOldFileStays) {
  ASSERT_EQ(Pull("").code, 0);
  const auto open = OpenVersion(2);  // is known before the bytes have come
  for (const char* lacks : {"rename", "rename tmpfile"}) {
    const Outcome outcome = Run(lacks, {"pull", "--version", "2", "--out", Out()});
    EXPECT_EQ(outcome.code, 1) << lacks;
    EXPECT_THAT(outcome.err, HasSubstr("does not rename files")) << lacks;
    EXPECT_THAT(outcome.err, HasSubstr("--out -")) << lacks;
    ExpectWhole();
  }
}

TEST_F(FileSystems, WithoutMappingFilesAreRead) {
  const Outcome outcome = Run("mmap", {"push", "--version", "3", Native()});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  ASSERT_EQ(Pull("").code, 0);
  ExpectWhole();
}

TEST_F(FileSystems, AFileThatIsReplacedKeepsItsPermissions) {
  ASSERT_EQ(Pull("").code, 0);
  for (const mode_t mode : {0600, 0664, 0444}) {
    for (const char* lacks : {"", "tmpfile"}) {
      ASSERT_EQ(chmod(Out().c_str(), mode), 0);
      ASSERT_EQ(Pull(lacks).code, 0);
      struct stat info = {};
      ASSERT_EQ(stat(Out().c_str(), &info), 0);
      EXPECT_EQ(info.st_mode & ALLPERMS, mode);
    }
  }
}

TEST_F(FileSystems, AKilledPullLeavesTheOldFileAndNoOther) {
  ASSERT_EQ(Pull("").code, 0);
  const auto open = OpenVersion(2);
  KillAPull("");
  ExpectWhole();
}

TEST_F(FileSystems, WhatAKilledPullLeavesTheNextOneRemoves) {
  ASSERT_EQ(Pull("").code, 0);
  const auto open = OpenVersion(2);
  KillAPull("tmpfile");
  EXPECT_EQ(OtherFiles().size(), 1u);
  EXPECT_EQ(Run("tmpfile", {"pull", "--version", "1", "--out", Out()}).code, 0);
  ExpectWhole();
}

}  // namespace
}  // namespace refit
