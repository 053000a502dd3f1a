// Prints status lines without blocking the program if nobody reads them.
#pragma once

#include <cstdio>
#include <string>

#include "common/process/line_writer.h"

namespace refit::cli {

// Lines on stdout or stderr, in order. If the pipe is full, lines beyond 1 MiB are dropped, and a line says so. The
// destructor writes the rest, for at most one second. Thread-safe.
class StatusLines {
 public:
  // `json`: the line about dropped lines is a JSON object too.
  explicit StatusLines(std::FILE* stream, bool json = false);

  // Control characters are escaped, because lines quote text from other processes.
  void Say(const std::string& line);
  // Whether the pipe's reader has closed it.
  bool reader_gone() const { return writer_.reader_gone(); }

 private:
  LineWriter writer_;
};

// Prints a line on stderr. It does not block if stderr is a full pipe.
void SayOnStderr(const std::string& line);

}  // namespace refit::cli
