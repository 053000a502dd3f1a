#include "refit/event_log.h"

#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/process/line_writer.h"

namespace refit {
namespace {

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

// Quoted as in JSON: quotes and control characters are escaped, and invalid UTF-8 is replaced, so that an event stays
// on one line.
std::string Quoted(const std::string& value) {
  return nlohmann::json(value).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string TextValue(const std::string& value) {
  const bool plain = !value.empty() && value.find_first_of(" \"=\\") == std::string::npos &&
                     std::all_of(value.begin(), value.end(), [](unsigned char c) { return c > 0x20 && c < 0x7f; });
  return plain ? value : Quoted(value);
}

std::string Line(LogFormat format, LogLevel level, absl::string_view event,
                 std::initializer_list<EventLog::Field> fields) {
  const std::string time = absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(), absl::UTCTimeZone());
  std::string line;
  if (format == LogFormat::kJson) {
    line = absl::StrCat("{\"time\":\"", time, "\",\"level\":\"", LevelName(level),
                        "\",\"event\":", Quoted(std::string(event)));
    for (const auto& [name, value] : fields) absl::StrAppend(&line, ",\"", name, "\":", Quoted(value));
    return line + "}";
  }
  line = absl::StrCat(time, " ", LevelName(level), " ", event);
  for (const auto& [name, value] : fields) absl::StrAppend(&line, " ", name, "=", TextValue(value));
  return line;
}

}  // namespace

EventLog::EventLog(LogFormat format, LogLevel least)
    : format_(format), least_(least), writer_(std::make_shared<LineWriter>(STDERR_FILENO, [format](uint64_t lines) {
        return Line(format, LogLevel::kWarning, "log lines dropped: nobody took them",
                    {{"lines", absl::StrCat(lines)}});
      })) {}

void EventLog::Write(LogLevel level, absl::string_view event, std::initializer_list<Field> fields) const {
  if (writer_ != nullptr && level >= least_) writer_->Write(Line(format_, level, event, fields));
}

void EventLog::Close() const {
  if (writer_ != nullptr) writer_->Close();
}

uint64_t EventLog::dropped() const { return writer_ == nullptr ? 0 : writer_->dropped(); }

}  // namespace refit
