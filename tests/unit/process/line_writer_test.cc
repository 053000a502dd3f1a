#include "common/process/line_writer.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "tests/support/eventually.h"
#include "tests/support/files.h"
#include "tests/support/forked.h"

namespace refit {
namespace {

using Clock = std::chrono::steady_clock;
using ::testing::ElementsAre;
using ::testing::Lt;

// A pipe or a pair of sockets.
class Ends {
 public:
  static Ends Pipe() {
    Ends ends;
    EXPECT_EQ(pipe(ends.fds_.data()), 0);
    return ends;
  }
  static Ends Sockets() {
    Ends ends;
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends.fds_.data()), 0);
    return ends;
  }
  ~Ends() {
    CloseReader();
    close(fds_[1]);
  }
  Ends(Ends&& other) noexcept : fds_(other.fds_) { other.fds_ = {-1, -1}; }
  Ends& operator=(Ends&&) = delete;

  int writer() const { return fds_[1]; }
  void CloseReader() {
    if (fds_[0] >= 0) close(fds_[0]);
    fds_[0] = -1;
  }
  // Until so many bytes have come; all that has, if none are asked for.
  std::string Read(size_t least = 0) const {
    std::string text;
    std::array<char, 4096> part;
    pollfd readable = {fds_[0], POLLIN, 0};
    while (poll(&readable, 1, text.size() < least ? 10'000 : 0) > 0) {
      const ssize_t got = read(fds_[0], part.data(), part.size());
      if (got <= 0) break;
      text.append(part.data(), static_cast<size_t>(got));
    }
    return text;
  }

 private:
  Ends() = default;
  std::array<int, 2> fds_ = {-1, -1};
};

std::string OfDropped(uint64_t lines) { return absl::StrCat(lines, " dropped"); }

std::vector<std::string> Lines(const std::string& text) { return absl::StrSplit(text, '\n', absl::SkipEmpty()); }

const std::string kLong(1000, 'x');

TEST(LineWriter, WritesWholeLinesInOrder) {
  const Ends pipe = Ends::Pipe();
  LineWriter writer(pipe.writer(), &OfDropped);
  for (int i = 0; i < 3; ++i) writer.Write(absl::StrCat("line ", i));
  EXPECT_TRUE(writer.Close());
  EXPECT_EQ(pipe.Read(), "line 0\nline 1\nline 2\n");
  writer.Write("too late");
  EXPECT_TRUE(writer.Close());
  EXPECT_EQ(pipe.Read(), "");
  EXPECT_EQ(writer.dropped(), 1);
}

class LineWriterUnread : public ::testing::TestWithParam<Ends (*)()> {};
INSTANTIATE_TEST_SUITE_P(Kinds, LineWriterUnread, ::testing::Values(&Ends::Pipe, &Ends::Sockets));

TEST_P(LineWriterUnread, NobodyWaitsForAReaderAndWhatIsDroppedIsTold) {
  const Ends ends = GetParam()();
  LineWriter writer(ends.writer(), &OfDropped, 64 << 10);
  const Clock::time_point begin = Clock::now();
  for (int i = 0; i < 2000; ++i) writer.Write(kLong);  // 2 MB: far more than pipe and queue take
  EXPECT_THAT(Clock::now() - begin, Lt(std::chrono::seconds(5)));
  EXPECT_GT(writer.dropped(), 0);
  const uint64_t dropped = writer.dropped();
  std::string text = ends.Read((2000 - dropped) * (kLong.size() + 1));
  writer.Write("after");
  while (text.find("\nafter\n") == std::string::npos) {
    const std::string more = ends.Read(1);
    ASSERT_NE(more, "") << text.substr(text.size() - 100);
    text += more;
  }
  uint64_t whole = 0;
  uint64_t told = 0;
  for (const std::string& line : Lines(text)) {
    if (line == kLong) ++whole;
    if (absl::EndsWith(line, " dropped")) told += std::stoull(line);
  }
  EXPECT_EQ(told, dropped);
  EXPECT_EQ(whole, 2000 - dropped);
  // For others who have the descriptor, writing waits as before.
  EXPECT_EQ(fcntl(ends.writer(), F_GETFL) & O_NONBLOCK, 0);
}

TEST_P(LineWriterUnread, ClosesInTime) {
  const Ends ends = GetParam()();
  LineWriter writer(ends.writer(), &OfDropped);
  for (int i = 0; i < 1000; ++i) writer.Write(kLong);
  const Clock::time_point begin = Clock::now();
  EXPECT_TRUE(writer.Close(std::chrono::milliseconds(100)));
  EXPECT_THAT(Clock::now() - begin, Lt(std::chrono::seconds(2)));
  EXPECT_GT(writer.dropped(), 0);
}

TEST_P(LineWriterUnread, AReaderThatGoesAwayRaisesNoSignal) {
  Ends ends = GetParam()();
  ends.CloseReader();
  LineWriter writer(ends.writer(), &OfDropped);
  writer.Write("nobody hears it");
  EXPECT_TRUE(Eventually([&] { return writer.reader_gone(); }));
  EXPECT_EQ(writer.dropped(), 1);
  sigset_t pending;
  sigpending(&pending);
  EXPECT_EQ(sigismember(&pending, SIGPIPE), 0);
}

TEST(LineWriter, AFullDiskLosesLinesOnly) {
  const int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
  ASSERT_GE(full, 0);
  const ScratchFolder folder;
  const int file = open(folder.Path("log").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  const int fd = fcntl(full, F_DUPFD_CLOEXEC, 0);
  LineWriter writer(fd, &OfDropped);
  writer.Write("first");
  EXPECT_TRUE(Eventually([&] { return writer.dropped() == 1; }));
  // There is room again: another file in its place.
  ASSERT_EQ(dup2(file, fd), fd);
  writer.Write("second");
  EXPECT_TRUE(writer.Close());
  std::ifstream log(folder.Path("log"));
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(log), {}), "1 dropped\nsecond\n");
  for (const int each : {full, file, fd}) close(each);
}

TEST(LineWriter, AFileGoesOnWhereItWas) {
  const ScratchFolder folder;
  const std::string path = folder.Write("log", "before\n");
  const int file = open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  {
    LineWriter writer(file, &OfDropped);
    writer.Write("after");
  }
  close(file);
  std::ifstream log(path);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(log), {}), "before\nafter\n");
}

TEST(LineWriter, AStoppedTerminalHoldsNothingUp) {
  const int terminal = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  ASSERT_GE(terminal, 0);
  ASSERT_EQ(grantpt(terminal), 0);
  ASSERT_EQ(unlockpt(terminal), 0);
  const int side = open(ptsname(terminal), O_RDWR | O_NOCTTY | O_CLOEXEC);
  ASSERT_GE(side, 0);
  LineWriter writer(side, &OfDropped, 64 << 10);
  for (int i = 0; i < 1000; ++i) writer.Write(kLong);  // nobody looks at the terminal
  const Clock::time_point begin = Clock::now();
  EXPECT_TRUE(writer.Close(std::chrono::milliseconds(100)));
  EXPECT_THAT(Clock::now() - begin, Lt(std::chrono::seconds(2)));
  close(side);
  close(terminal);
}

TEST(LineWriter, NothingComesFromAChild) {
  const Ends pipe = Ends::Pipe();
  {
    LineWriter writer(pipe.writer(), &OfDropped);
    EXPECT_EQ(InChild([&] {
                writer.Write("of the child");
                writer.Close();
                return 0;
              }),
              0);
    writer.Write("of the parent");
  }
  EXPECT_THAT(Lines(pipe.Read()), ElementsAre("of the parent"));
}

}  // namespace
}  // namespace refit
