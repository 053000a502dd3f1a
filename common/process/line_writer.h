// Lines for a descriptor that nobody may be reading: whoever writes them never waits.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "refit/fork_guard.h"

namespace refit {

// Writes from a thread of its own; a pipe that is full or closed, a stopped terminal and a full disk hold up only that.
// What finds no room in the queue, or cannot be written, is dropped and counted. No signal is raised, and the
// descriptor stays as it is for others who have it. Thread-safe. In a child of a fork all is dropped.
class LineWriter {
 public:
  // What to say of `lines` that were dropped, before the next one that was not.
  using OfDropped = std::function<std::string(uint64_t lines)>;

  // `fd`, such as STDERR_FILENO, is the caller's, who may put something else in its place meanwhile.
  explicit LineWriter(int fd, OfDropped of_dropped, size_t max_queued_bytes = 1 << 20);
  ~LineWriter();  // closes it
  LineWriter(const LineWriter&) = delete;
  LineWriter& operator=(const LineWriter&) = delete;

  // `line` without its end.
  void Write(std::string line);

  // Writes what is queued, as far as that can be done within `patience`; what comes later is dropped. Idempotent. False
  // if a write does not come back at all, as from a file system that does not answer.
  bool Close(std::chrono::milliseconds patience = std::chrono::seconds(1));

  // Lines that were not written.
  uint64_t dropped() const;
  // Whether whoever read it has gone: a pipe or socket whose other end is closed.
  bool reader_gone() const;

 private:
  class State;
  OwnedByProcess<State> state_;
};

}  // namespace refit
