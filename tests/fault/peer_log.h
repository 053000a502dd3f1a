// The log of a process in a chaos run: one line for each event, which outlives the process.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"

namespace refit {

// A line is written whole or not at all, whenever the writer is killed.
class PeerLog {
 public:
  explicit PeerLog(const std::string& path)
      : fd_(open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600)) {}
  ~PeerLog() { close(fd_); }
  PeerLog(const PeerLog&) = delete;
  PeerLog& operator=(const PeerLog&) = delete;

  void Write(const std::string& word, uint64_t number = 0) const {
    const std::string line = absl::StrCat(word, " ", number, "\n");
    (void)!write(fd_, line.data(), line.size());
  }

 private:
  const int fd_;
};

}  // namespace refit
