// Writes lines to a descriptor without blocking the caller, even if no one reads the other end.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "refit/fork_guard.h"

namespace refit {

// Writes from a thread of its own. A full or closed pipe, a stopped terminal or a full disk blocks only that thread.
// Lines that do not fit into the queue, or cannot be written, are dropped and counted. It raises no signal, and does
// not change the descriptor for other users of it. Thread-safe. In a child of a fork all lines are dropped.
class LineWriter {
 public:
  // Makes the line that reports `lines` dropped lines, before the next line that is written.
  using OfDropped = std::function<std::string(uint64_t lines)>;

  // `fd`, such as STDERR_FILENO, belongs to the caller, who may put another file in its place meanwhile.
  explicit LineWriter(int fd, OfDropped of_dropped, size_t max_queued_bytes = 1 << 20);
  ~LineWriter();  // calls Close
  LineWriter(const LineWriter&) = delete;
  LineWriter& operator=(const LineWriter&) = delete;

  // `line` has no line end.
  void Write(std::string line);

  // Writes the queued lines, as far as possible within `patience`. Later lines are dropped. Idempotent. False if a
  // write does not return at all, for example because a file system does not answer.
  bool Close(std::chrono::milliseconds patience = std::chrono::seconds(1));

  // How many lines were not written.
  uint64_t dropped() const;
  // Whether the reader of the pipe or socket has closed it.
  bool reader_gone() const;

 private:
  class State;
  OwnedByProcess<State> state_;
};

}  // namespace refit
