#include "server/event_log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace refit {
namespace {

spdlog::level::level_enum ToSpdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

const char* LevelName(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kError:
      return "error";
  }
  return "info";
}

// As JSON has it: quotes and control characters escaped, bytes that are no UTF-8 replaced, so that a line stays a line.
std::string Quoted(const std::string& value) {
  return nlohmann::json(value).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string TextValue(const std::string& value) {
  const bool plain = !value.empty() && value.find_first_of(" \"=\\") == std::string::npos &&
                     std::all_of(value.begin(), value.end(), [](unsigned char c) { return c > 0x20 && c < 0x7f; });
  return plain ? value : Quoted(value);
}

}  // namespace

EventLog::EventLog(LogFormat format, LogLevel least)
    : format_(format),
      logger_(std::make_shared<spdlog::logger>("refit", std::make_shared<spdlog::sinks::stderr_sink_mt>())) {
  logger_->set_level(ToSpdlog(least));
  logger_->set_pattern("%v");
}

void EventLog::Write(LogLevel level, absl::string_view event, std::initializer_list<Field> fields) const {
  if (logger_ == nullptr || !logger_->should_log(ToSpdlog(level))) return;
  const std::string time = absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(), absl::UTCTimeZone());
  std::string line;
  if (format_ == LogFormat::kJson) {
    line = absl::StrCat("{\"time\":\"", time, "\",\"level\":\"", LevelName(level),
                        "\",\"event\":", Quoted(std::string(event)));
    for (const auto& [name, value] : fields) absl::StrAppend(&line, ",\"", name, "\":", Quoted(value));
    line += "}";
  } else {
    line = absl::StrCat(time, " ", LevelName(level), " ", event);
    for (const auto& [name, value] : fields) absl::StrAppend(&line, " ", name, "=", TextValue(value));
  }
  logger_->log(ToSpdlog(level), "{}", line);
}

}  // namespace refit
