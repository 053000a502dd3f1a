// Structured logs: one event a line, with named fields.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/string_view.h"

namespace refit {

class LineWriter;

enum class LogLevel { kDebug, kInfo, kWarning, kError };
enum class LogFormat { kText, kJson };

// Cheap to copy. A default-constructed log writes nothing. Thread-safe. Logging never blocks, even if no one reads the
// log: up to 1 MiB of lines is queued. More lines are dropped and counted, and a line reports that as soon as one can
// be written again.
class EventLog {
 public:
  using Field = std::pair<absl::string_view, std::string>;

  EventLog() = default;
  // Writes to stderr. When the last copy is destroyed, it writes the queued lines, for at most one second.
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

  // Writes the queued lines, for at most one second, for a program that ends abruptly. Later lines are dropped.
  void Close() const;
  // How many lines were dropped.
  uint64_t dropped() const;

 private:
  LogFormat format_ = LogFormat::kText;
  LogLevel least_ = LogLevel::kInfo;
  std::shared_ptr<LineWriter> writer_;
};

}  // namespace refit
