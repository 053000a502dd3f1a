// A wall clock that can be stepped, for whole processes; see stepping_clock.cc.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <string>
#include <vector>

#include "tests/support/temporary_folder.h"

namespace refit {

class WallClockSteps {
 public:
  WallClockSteps() : path_(folder_.Path("steps")) {
    const int fd = open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    (void)!ftruncate(fd, sizeof(int64_t));
    ahead_ = static_cast<volatile int64_t*>(mmap(nullptr, sizeof(int64_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    close(fd);
  }
  ~WallClockSteps() { munmap(const_cast<int64_t*>(ahead_), sizeof(int64_t)); }
  WallClockSteps(const WallClockSteps&) = delete;
  WallClockSteps& operator=(const WallClockSteps&) = delete;

  // The command prefix that starts a program under this clock.
  std::vector<std::string> Starter() const {
    return {"env", std::string("LD_PRELOAD=") + REFIT_STEPPING_CLOCK, "STEPPING_CLOCK=" + path_};
  }
  // Sets how far the clock is ahead of the system's. Negative: behind.
  void Set(int64_t seconds) { *ahead_ = seconds; }

 private:
  TemporaryFolder folder_;
  const std::string path_;
  volatile int64_t* ahead_ = nullptr;
};

}  // namespace refit
