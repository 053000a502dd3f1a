#include "common/net/grpc_log.h"

#include <grpc/grpc.h>
#include <grpc/support/log.h>
#include <gtest/gtest.h>

#include <cstdlib>

namespace refit {
namespace {

// The process ends; nobody may be left wondering why.
TEST(GrpcLogDeathTest, SaysWhatAnAssertionFoundWhateverElseIsSilent) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        unsetenv("GRPC_VERBOSITY");
        unsetenv("GRPC_TRACE");
        grpc_init();
        KeepGrpcLogFromBlocking();
        gpr_log(GPR_ERROR, "not heard");
        GPR_ASSERT(1 + 1 == 3);
      },
      "^gRPC: .*grpc_log_test.cc:[0-9]+\\] assertion failed: 1 \\+ 1 == 3\n$");
}

}  // namespace
}  // namespace refit
