#include "server/settings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "tests/support/status_matchers.h"

namespace refit {
namespace {

using ::testing::HasSubstr;

class SettingsTest : public ::testing::Test {
 protected:
  absl::Status Set(const std::string& argument, const std::string& text) {
    const auto is_meant = [&](const Setting& setting) { return setting.argument == argument; };
    const auto setting = std::find_if(settings_.begin(), settings_.end(), is_meant);
    return setting == settings_.end() ? absl::NotFoundError(argument) : setting->set(text);
  }

  ServerOptions options_;
  LogOptions log_;
  const std::vector<Setting> settings_ = SettingsOf(options_, log_);
};

TEST_F(SettingsTest, EachHasNamesOfItsOwnAndSaysWhatItIs) {
  std::set<std::string> names;
  for (const Setting& setting : settings_) {
    EXPECT_TRUE(names.insert(setting.flag).second && names.insert(setting.argument).second) << setting.flag;
    EXPECT_EQ(setting.flag.substr(0, 2), "--");
    EXPECT_FALSE(setting.help.empty()) << setting.flag;
  }
}

TEST_F(SettingsTest, OnlyAddressesMayBeSeveral) {
  for (const Setting& setting : settings_) {
    EXPECT_EQ(setting.is_list, setting.flag == "--listen" || setting.flag == "--upstream") << setting.flag;
  }
}

TEST_F(SettingsTest, PermissionsAreOctal) {
  EXPECT_THAT(Set("socket_mode", "660"), IsOk());
  EXPECT_EQ(options_.socket_mode, 0660U);
  EXPECT_THAT(Set("socket_mode", "0666"), IsOk());
  for (const char* text : {"", "0", "68", "rw-rw----", "7777", "06600", "-1", "0o660"}) {
    EXPECT_THAT(Set("socket_mode", text), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("octal"))) << text;
  }
  EXPECT_EQ(options_.socket_mode, 0666U);
}

TEST_F(SettingsTest, SizesHaveUnitsOf1024) {
  for (const char* text : {"67108864", "64MiB", "64mb", " 64 m", "0.0625GiB", "67108864b", "65536KB"}) {
    options_.store.memory_budget_bytes = 1;
    EXPECT_THAT(Set("memory", text), IsOk());
    EXPECT_EQ(options_.store.memory_budget_bytes, uint64_t{64} << 20) << text;
  }
  for (const char* text :
       {"", "much", "-1", "1 XiB", "1GiBs", "1e9", "1.2.3", "99999999999999999999", "16EiB", "GiB"}) {
    EXPECT_THAT(Set("memory", text), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("16GiB, got"))) << text;
  }
}

TEST_F(SettingsTest, AZoneIsAName) {
  EXPECT_THAT(Set("zone", "eu-west-1a"), IsOk());
  EXPECT_EQ(options_.zone, "eu-west-1a");
}

TEST_F(SettingsTest, SecondsAreAnyPositiveTime) {
  EXPECT_THAT(Set("push_idle_timeout", "0.25"), IsOk());
  EXPECT_EQ(options_.limits.push_idle_timeout, std::chrono::milliseconds(250));
  EXPECT_THAT(Set("push_idle_timeout", "1e9"), IsOk());  // 31 years: a deadline of it is still one
  for (const char* text : {"0", "-3", "nan", "inf", "1e10", "a while", ""}) {
    EXPECT_THAT(Set("push_idle_timeout", text),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("expected seconds")))
        << text;
  }
}

TEST_F(SettingsTest, NumbersHaveTheirRange) {
  EXPECT_THAT(Set("retain", "0"), IsOk());
  EXPECT_EQ(options_.store.retain_versions, 0u);
  EXPECT_THAT(Set("retain", "1001"),
              StatusIs(absl::StatusCode::kInvalidArgument, "expected a whole number from 0 to 1000, got '1001'"));
  EXPECT_EQ(options_.store.retain_versions, 0u);
  EXPECT_FALSE(Set("max_pulls", "99999999999").ok());
  EXPECT_FALSE(Set("max_pulls", "1.5").ok());
}

TEST_F(SettingsTest, SwitchesAndChoices) {
  EXPECT_THAT(Set("shared_memory", "false"), IsOk());
  EXPECT_FALSE(options_.store.shared_memory);
  EXPECT_FALSE(Set("shared_memory", "perhaps").ok());
  EXPECT_THAT(Set("log_level", "error"), IsOk());
  EXPECT_EQ(log_.level, LogLevel::kError);
  EXPECT_THAT(Set("log_format", "xml"),
              StatusIs(absl::StatusCode::kInvalidArgument, "expected json or text, got 'xml'"));
}

TEST(SettingsNames, AreArgumentsForWhoGaveArguments) {
  EXPECT_EQ(WithArgumentNames("use TLS (--tls-cert, --tls-key, --tls-client-ca) or --push-idle-timeout"),
            "use TLS (certificate=, key=, client_ca=) or push_idle_timeout=");
  EXPECT_EQ(WithArgumentNames("allow it with --allow-plaintext"), "allow it with allow_plaintext=True");
  EXPECT_EQ(WithArgumentNames("with --retain 0, or --no-shared-memory"), "with retain=0, or shared_memory=False");
  EXPECT_EQ(WithArgumentNames("--max-name-bytes and --memory"), "max_name_bytes= and memory=");
}

}  // namespace
}  // namespace refit
