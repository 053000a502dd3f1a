#include "refit/event_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace refit {
namespace {

std::string Logged(const EventLog& log, LogLevel level, std::initializer_list<EventLog::Field> fields) {
  ::testing::internal::CaptureStderr();
  log.Write(level, "version committed", fields);
  log.Close();
  return ::testing::internal::GetCapturedStderr();
}

TEST(EventLog, TextIsOneLineOfNamedFields) {
  const EventLog log(LogFormat::kText, LogLevel::kInfo);
  EXPECT_THAT(Logged(log, LogLevel::kInfo, {{"model", "default"}, {"reason", "two words"}, {"odd", "a\nb=\"c\""}}),
              ::testing::MatchesRegex("[0-9]+-[0-9]+-[0-9]+T[0-9:.]+Z info version committed model=default "
                                      "reason=\"two words\" odd=\"a\\\\nb=\\\\\"c\\\\\"\"\n"));
}

TEST(EventLog, JsonIsOneObjectALine) {
  const EventLog log(LogFormat::kJson, LogLevel::kInfo);
  const auto parsed = nlohmann::json::parse(Logged(log, LogLevel::kWarning, {{"name", "\xff\n"}, {"version", "3"}}));
  EXPECT_EQ(parsed["level"], "warning");
  EXPECT_EQ(parsed["event"], "version committed");
  EXPECT_EQ(parsed["version"], "3");
}

TEST(EventLog, IsSilentBelowItsLevelAndByDefault) {
  EXPECT_EQ(Logged(EventLog(LogFormat::kText, LogLevel::kError), LogLevel::kWarning, {}), "");
  EXPECT_EQ(Logged(EventLog(), LogLevel::kError, {}), "");
  EXPECT_NE(Logged(EventLog(LogFormat::kText, LogLevel::kDebug), LogLevel::kDebug, {}), "");
  EXPECT_NE(Logged(EventLog(LogFormat::kText, LogLevel::kError), LogLevel::kError, {}), "");
}

}  // namespace
}  // namespace refit
