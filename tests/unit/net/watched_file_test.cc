#include "common/net/watched_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <vector>

#include "tests/support/files.h"
#include "tests/support/status_matchers.h"

namespace refit {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(ReadSmallFileTest, ReadsWhatIsThere) {
  const ScratchFolder folder;
  EXPECT_EQ(*ReadSmallFile(folder.Write("a", std::string("x\0y\n", 4))), std::string("x\0y\n", 4));
  EXPECT_EQ(*ReadSmallFile(folder.Write("empty", "")), "");
}

TEST(ReadSmallFileTest, RefusesWhatIsNoSmallFileOfOurs) {
  const ScratchFolder folder;
  EXPECT_THAT(ReadSmallFile(folder.Path("none")), StatusIs(absl::StatusCode::kNotFound, HasSubstr("none")));
  EXPECT_THAT(ReadSmallFile(folder.path()), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("regular")));
  ASSERT_EQ(mkfifo(folder.Path("pipe").c_str(), 0600), 0);
  EXPECT_THAT(ReadSmallFile(folder.Path("pipe")), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("regular")));
  EXPECT_THAT(ReadSmallFile(folder.Write("large", std::string((1 << 20) + 1, 'x'))),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("larger")));
  EXPECT_THAT(ReadSmallFile(folder.Write("open", "x", 0666)),
              StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("chmod o-w")));
}

TEST(ReadSecretFileTest, RefusesWhatOthersMayRead) {
  const ScratchFolder folder;
  for (const mode_t mode : {0600, 0400, 0700}) EXPECT_OK(ReadSecretFile(folder.Write("s", "secret", mode))) << mode;
  for (const mode_t mode : {0604, 0644, 0620, 0602, 0601, 0666, 0660}) {
    const auto read = ReadSecretFile(folder.Write("s", "secret", mode));
    EXPECT_THAT(read, StatusIs(absl::StatusCode::kPermissionDenied,
                               AllOf(HasSubstr("chmod 600"), HasSubstr("defaultMode"), HasSubstr("fsGroup"))))
        << mode;
    EXPECT_THAT(std::string(read.status().message()), Not(HasSubstr("secret'"))) << mode;
  }
}

TEST(ReadSecretFileTest, TheGroupMayReadWhatIsRootsButNotWhatIsAUsers) {
  const ScratchFolder folder;
  for (const mode_t mode : {0640, 0440}) {
    const auto read = ReadSecretFile(folder.Write("s", "secret", mode));
    EXPECT_EQ(read.ok(), geteuid() == 0) << mode << " " << read.status();
  }
}

TEST(ReadSecretFileTest, TheGroupOfAMountedSecretMayReadIt) {
  if (geteuid() != 0) GTEST_SKIP() << "not root, so it cannot make a file of another user";
  const ScratchFolder folder;
  const std::string path = folder.Write("s", "secret", 0440);
  ASSERT_EQ(chown(path.c_str(), 65534, 0), 0);
  EXPECT_OK(ReadSecretFile(path));
  ASSERT_EQ(chmod(path.c_str(), 0444), 0);
  EXPECT_THAT(ReadSecretFile(path), StatusIs(absl::StatusCode::kPermissionDenied));
}

TEST(WatchedFileTest, FollowsTheFileAndKeepsTheOldWhenItCannot) {
  const ScratchFolder folder;
  const std::string path = folder.Write("f", "one");
  std::vector<absl::Status> reports;
  const auto read = [](const std::string& file) -> absl::StatusOr<std::string> {
    absl::StatusOr<std::string> text = ReadSmallFile(file);
    if (text.ok() && *text == "bad") return absl::InvalidArgumentError("bad");
    return text;
  };
  auto watched =
      WatchedFile<std::string>::Load(path, read, [&](const absl::Status& status) { reports.push_back(status); });
  ASSERT_OK(watched);
  EXPECT_EQ(*(*watched)->Get(), "one");
  EXPECT_TRUE(reports.empty());

  folder.Write("f", "two");
  EXPECT_EQ(*(*watched)->Get(), "two");
  ASSERT_EQ(reports.size(), 1U);
  EXPECT_OK(reports.back());

  folder.Write("f", "bad");
  EXPECT_EQ(*(*watched)->Get(), "two");
  EXPECT_EQ(*(*watched)->Get(), "two");
  ASSERT_EQ(reports.size(), 2U) << "said once";
  EXPECT_THAT(reports.back(), StatusIs(absl::StatusCode::kInvalidArgument));

  ASSERT_EQ(unlink(path.c_str()), 0);
  EXPECT_EQ(*(*watched)->Get(), "two");
  EXPECT_THAT(reports.back(), StatusIs(absl::StatusCode::kNotFound));

  folder.Write("f", "six");
  EXPECT_EQ(*(*watched)->Get(), "six");
  EXPECT_EQ(reports.size(), 4U);
}

TEST(WatchedFileTest, DoesNotBeginWithWhatCannotBeRead) {
  const ScratchFolder folder;
  EXPECT_THAT(WatchedFile<std::string>::Load(folder.Path("none"), ReadSmallFile, nullptr),
              StatusIs(absl::StatusCode::kNotFound));
}

}  // namespace
}  // namespace refit
