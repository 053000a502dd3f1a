// Lines that tell how things go, and hold nothing up where nobody reads them.
#pragma once

#include <cstdio>
#include <string>

#include "common/process/line_writer.h"

namespace refit::cli {

// On stdout or stderr, in order; if the pipe takes none, what does not fit into 1 MiB is dropped, and a line says so.
// The destructor writes what is left, for a second at most. Thread-safe.
class StatusLines {
 public:
  // `json`: what is said of dropped lines is an object too.
  explicit StatusLines(std::FILE* stream, bool json = false);

  // What a terminal would obey is escaped: lines quote what others have sent.
  void Say(std::string line);
  // The pipe's reader has gone.
  bool reader_gone() const { return writer_.reader_gone(); }

 private:
  LineWriter writer_;
};

// A line on stderr, which may be full.
void SayOnStderr(std::string line);

}  // namespace refit::cli
