#include "common/terminal/help_formatter.h"

#include <gtest/gtest.h>

namespace refit {
namespace {

TEST(WrapHelpTest, LeavesAloneWhatFits) {
  EXPECT_EQ(WrapHelp("one two\n  refit push  # three\n\n  0    done", 30),
            "one two\n  refit push  # three\n\n  0    done");
}

TEST(WrapHelpTest, WrapsParagraphs) {
  EXPECT_EQ(WrapHelp("one two three four\nfive", 10), "one two\nthree four\nfive");
}

TEST(WrapHelpTest, WrapsTheRightHalfOfATableBelowItself) {
  EXPECT_EQ(WrapHelp("  130  interrupted by a signal", 21), "  130  interrupted by\n       a signal");
}

TEST(WrapHelpTest, CommandsStayCommands) {
  EXPECT_EQ(WrapHelp("  refit push --version 1 checkpoint/  # one", 24),
            "  # one\n  refit push --version \\\n    1 checkpoint/");
}

TEST(WrapHelpTest, AWordThatIsTooLongStandsAlone) { EXPECT_EQ(WrapHelp("a bcdefghijkl m", 6), "a\nbcdefghijkl\nm"); }

}  // namespace
}  // namespace refit
