// Structured logs: one event a line, with named fields.
#pragma once

#include <initializer_list>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/string_view.h"

namespace spdlog {
class logger;
}

namespace refit {

enum class LogLevel { kDebug, kInfo, kWarning, kError };
enum class LogFormat { kText, kJson };

// Cheap to copy; a default-constructed one is silent. Thread-safe.
class EventLog {
 public:
  using Field = std::pair<absl::string_view, std::string>;

  EventLog() = default;
  // Writes to stderr.
  EventLog(LogFormat format, LogLevel least);

  // Text: `2026-01-31T12:00:00.123Z info version committed model=default version=3`. Values with spaces, quotes or '='
  // are quoted. JSON: `{"time":...,"level":...,"event":...,"model":"default",...}`.
  void Write(LogLevel level, absl::string_view event, std::initializer_list<Field> fields = {}) const;
  void Info(absl::string_view event, std::initializer_list<Field> fields = {}) const {
    Write(LogLevel::kInfo, event, fields);
  }
  void Warning(absl::string_view event, std::initializer_list<Field> fields = {}) const {
    Write(LogLevel::kWarning, event, fields);
  }
  void Error(absl::string_view event, std::initializer_list<Field> fields = {}) const {
    Write(LogLevel::kError, event, fields);
  }

 private:
  LogFormat format_ = LogFormat::kText;
  std::shared_ptr<spdlog::logger> logger_;
};

}  // namespace refit
