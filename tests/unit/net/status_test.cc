#include "common/net/status.h"

#include <gtest/gtest.h>

#include <string>

namespace refit {
namespace {

TEST(Status, RoundTripsEveryCode) {
  for (int code = 0; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), "why");
    EXPECT_EQ(static_cast<int>(ToGrpc(status).error_code()), code);
    EXPECT_EQ(FromGrpc(ToGrpc(status)), status);
  }
}

TEST(Status, LongMessagesAreCut) {
  const grpc::Status status = ToGrpc(absl::InternalError(std::string(100'000, 'x')));
  EXPECT_LT(status.error_message().size(), 3000u);
  EXPECT_EQ(status.error_message().substr(status.error_message().size() - 4), "x...");
}

TEST(Status, AnnotateSaysWhere) {
  EXPECT_EQ(Annotate(absl::NotFoundError("no tensor x"), "pull of default/3"),
            absl::NotFoundError("pull of default/3: no tensor x"));
  EXPECT_TRUE(Annotate(absl::OkStatus(), "anything").ok());
}

}  // namespace
}  // namespace refit
