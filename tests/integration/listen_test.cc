// One service at several addresses.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "refit/inspector.h"
#include "refit/server.h"
#include "tests/integration/service_process.h"
#include "tests/integration/subprocess.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_folder.h"

namespace refit {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

absl::Status Reach(const std::string& address) {
  auto inspector = Inspector::Connect({.address = address, .connect_timeout = std::chrono::seconds(1)});
  return inspector.ok() ? (*inspector)->ServerInfo().status() : inspector.status();
}

class Listen : public ::testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<RefitServer>> Start(const std::string& listen) {
    ServerOptions options;
    options.listen = listen;
    return RefitServer::Start(options);
  }
  std::string Socket(const std::string& name = "socket") { return absl::StrCat("unix:", folder_.Path(name)); }

  TemporaryFolder folder_;
};

TEST_F(Listen, ServesAtAllOfThem) {
  auto server = Start(absl::StrCat("127.0.0.1:0, ", Socket(), ",[::1]:0"));
  ASSERT_OK(server);
  EXPECT_THAT((*server)->addresses(), ElementsAre(StartsWith("127.0.0.1:"), Socket(), StartsWith("[::1]:")));
  EXPECT_EQ((*server)->address(), (*server)->addresses()[0]);
  EXPECT_EQ((*server)->address(), absl::StrCat("127.0.0.1:", (*server)->port()));
  for (const std::string& address : (*server)->addresses()) EXPECT_OK(Reach(address));
}

TEST_F(Listen, ThePortIsTheFirstOneThereIs) {
  auto server = Start(absl::StrCat(Socket(), ",127.0.0.1:0"));
  ASSERT_OK(server);
  EXPECT_EQ((*server)->address(), Socket());
  EXPECT_EQ((*server)->addresses()[1], absl::StrCat("127.0.0.1:", (*server)->port()));
  auto without = Start(Socket("other"));
  ASSERT_OK(without);
  EXPECT_EQ((*without)->port(), 0);
}

TEST_F(Listen, NamesTheOneThatCannotBe) {
  auto other = Start("127.0.0.1:0");
  ASSERT_OK(other);
  const std::string taken = (*other)->address();
  EXPECT_THAT(Start(absl::StrCat(Socket(), ",", taken, ",127.0.0.1:0")),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr(absl::StrCat("'", taken, "'"))));
  EXPECT_THAT(Start(absl::StrCat(Socket(), ",0.0.0.0:0")),
              StatusIs(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr("0.0.0.0:0"), HasSubstr("plain text"))));
  for (const char* bad : {"127.0.0.1:0,", "127.0.0.1:0,,", "127.0.0.1:0,nowhere"}) {
    EXPECT_THAT(Start(bad), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--listen: "))) << bad;
  }
}

TEST_F(Listen, PermissionsAreForSocketsOnly) {
  ServerOptions options;
  options.listen = "127.0.0.1:0";
  options.socket_mode = 0660;
  EXPECT_THAT(RefitServer::Start(options), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--socket-mode")));
  options.listen = absl::StrCat("127.0.0.1:0,", Socket());
  auto server = RefitServer::Start(options);
  ASSERT_OK(server);
  for (const char* name : {"socket", "socket.fds"}) {
    struct stat made = {};
    ASSERT_EQ(stat(folder_.Path(name).c_str(), &made), 0);
    EXPECT_EQ(made.st_mode & 0777U, 0660U) << name;
  }
}

TEST_F(Listen, AChildOfAForkKeepsNoneOfThemTaken) {
  auto server = Start(absl::StrCat("127.0.0.1:0,", Socket()));
  ASSERT_OK(server);
  const std::string tcp = (*server)->address();
  int hold[2];
  ASSERT_EQ(pipe2(hold, O_CLOEXEC), 0);
  const pid_t child = fork();
  if (child == 0) {
    close(hold[1]);
    char none = 0;
    _exit(static_cast<int>(read(hold[0], &none, 1)));  // until the parent closes its end
  }
  server->reset();
  for (const std::string& address : {tcp, Socket()}) {
    EXPECT_THAT(Reach(address), StatusIs(absl::StatusCode::kUnavailable)) << address;
  }
  EXPECT_OK(Start(absl::StrCat(tcp, ",", Socket())));
  close(hold[1]);
  close(hold[0]);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST_F(Listen, FromTheShellTheFlagIsGivenSeveralTimes) {
  ServiceProcess service({"--listen", Socket()});
  ASSERT_NE(service.port(), 0) << service.Err();
  EXPECT_OK(Reach(service.address()));
  EXPECT_OK(Reach(Socket()));
  EXPECT_EQ(service.Terminate().code, 0);
}

}  // namespace
}  // namespace refit
