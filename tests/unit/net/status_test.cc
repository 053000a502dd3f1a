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

TEST(Status, WhyNoConnectionCameAboutIsSaidWithoutNoise) {
  const auto said = [](const char* message) {
    return std::string(FromGrpc(grpc::Status(grpc::StatusCode::UNAVAILABLE, message)).message());
  };
  EXPECT_EQ(said("failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Failed to connect to "
                 "remote host: Connection refused"),
            "cannot connect: Connection refused");
  EXPECT_EQ(said("failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Tls handshake failed: "
                 "SSL_ERROR_SSL: error:0A000086:SSL routines::certificate verify failed"),
            "cannot connect: certificate verify failed");
  EXPECT_EQ(said("DNS resolution failed for host:1: C-ares status is not ARES_SUCCESS qtype=AAAA name=host "
                 "is_balancer=0: Domain name not found"),
            "cannot connect: Domain name not found");
  EXPECT_EQ(said("the service: is shutting down"), "the service: is shutting down");
}

TEST(Status, OnlyTheCallerCancels) {
  const grpc::Status by_grpc(grpc::StatusCode::CANCELLED, "CANCELLED");
  EXPECT_EQ(FromPeer(by_grpc), absl::UnavailableError("the service, or a proxy in between, cancelled the call"));
  EXPECT_EQ(FromPeer(grpc::Status(grpc::StatusCode::CANCELLED, "enough")),
            absl::UnavailableError("the service, or a proxy in between, cancelled the call: enough"));
  EXPECT_EQ(FromGrpc(by_grpc).code(), absl::StatusCode::kCancelled);
  for (int code = 2; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), "why");
    EXPECT_EQ(FromPeer(ToGrpc(status)), status);
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
