// A service that answers a new connection late, as on a busy host, or where a whole fleet connects at once.
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "refit/publisher.h"
#include "refit/subscriber.h"
#include "tests/fault/fault_proxy.h"
#include "tests/integration/service_process.h"
#include "tests/support/fleet.h"

namespace refit {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class LateAnswerTest : public ::testing::Test {
 protected:
  LateAnswerTest() : near_(service_.port()), far_(service_.port()) {
    auto publisher = Publisher::Connect(WireTo(service_.address()));
    EXPECT_OK(publisher);
    EXPECT_OK(model_.Push(**publisher, 1));
  }

  void AnswerLate() {
    near_.AnswerNewConnectionsAfter(kLate);
    far_.AnswerNewConnectionsAfter(kLate);
  }

  static constexpr milliseconds kLate{2'500};
  const TestModel model_{6, 512, 2048};  // 24 MB
  ServiceProcess service_;
  FaultProxy near_;
  FaultProxy far_;
};

TEST_F(LateAnswerTest, IsReachedByWhoConnects) {
  AnswerLate();
  EXPECT_OK(Publisher::Connect(WireTo(near_.address())));
  EXPECT_OK(Subscriber::Connect(WireTo(near_.address())));
  EXPECT_OK(Subscriber::Connect(WireTo(absl::StrCat(near_.address(), ",", far_.address()))));
}

TEST_F(LateAnswerTest, IsReachedAgainAfterACutPush) {
  auto publisher = Publisher::Connect(WireTo(near_.address()));
  ASSERT_OK(publisher);
  AnswerLate();
  near_.Inject({.kind = Fault::Kind::kCut, .after_bytes = 4 << 20, .towards_client = false});
  EXPECT_THAT(model_.Push(**publisher, 2), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("the stream was cut")));
  EXPECT_OK(model_.Push(**publisher, 3));
}

TEST_F(LateAnswerTest, IsReachedAgainAmidAPull) {
  for (const std::string& address : {near_.address(), absl::StrCat(near_.address(), ",", far_.address())}) {
    near_.AnswerNewConnectionsAfter(milliseconds(0));
    auto subscriber = Subscriber::Connect(WireTo(address));
    ASSERT_OK(subscriber);
    AnswerLate();
    near_.Inject({.kind = Fault::Kind::kCut, .after_bytes = 4 << 20});
    EXPECT_OK((*subscriber)->Pull({})) << address;
  }
  EXPECT_EQ(near_.struck(), 2u);
}

TEST_F(LateAnswerTest, OneThatNeverAnswersIsNotCalledAbsent) {
  near_.AnswerNewConnectionsAfter(std::chrono::hours(1));
  ChannelOptions channel = WireTo(near_.address());
  channel.connect_timeout = seconds(1);
  EXPECT_THAT(Subscriber::Connect(channel),
              StatusIs(absl::StatusCode::kUnavailable, AllOf(HasSubstr("no answer"), HasSubstr("stopped or overloaded"),
                                                             Not(HasSubstr("does the service run there")))));
}

}  // namespace
}  // namespace refit
