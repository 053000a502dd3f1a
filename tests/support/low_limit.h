// Lowers limits of this process for a while.
#pragma once

#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <stdexcept>

namespace refit {

// Lowers the soft limit of `resource`, such as RLIMIT_NOFILE.
class LowLimit {
 public:
  LowLimit(__rlimit_resource resource, rlim_t limit) : resource_(resource) {
    if (getrlimit(resource, &before_) != 0) throw std::runtime_error("getrlimit");
    const rlimit low = {limit, before_.rlim_max};
    if (setrlimit(resource, &low) != 0) throw std::runtime_error("setrlimit");
  }
  ~LowLimit() { setrlimit(resource_, &before_); }
  LowLimit(const LowLimit&) = delete;
  LowLimit& operator=(const LowLimit&) = delete;

 private:
  const __rlimit_resource resource_;
  rlimit before_ = {};
};

// Takes all mappings that vm.max_map_count leaves this process, except `left`.
class NoMappings {
 public:
  explicit NoMappings(size_t left = 0) {
    data_ = static_cast<std::byte*>(mmap(nullptr, kPages * page_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (data_ == MAP_FAILED) throw std::runtime_error("mmap");
    // Each page that differs from its neighbours takes two more mappings.
    size_t taken = 1;
    while (taken < kPages && mprotect(data_ + taken * page_, page_, PROT_READ) == 0) taken += 2;
    is_exhausted_ = taken < kPages;
    // Dividing a mapping cannot take the last ones. These single mappings are never merged.
    for (void*& single : singles_) single = mmap(nullptr, page_, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (size_t given = 0; given < left && taken > 2; given += 2) {
      taken -= 2;
      mprotect(data_ + taken * page_, page_, PROT_NONE);
    }
  }
  ~NoMappings() {
    munmap(data_, kPages * page_);
    for (void* const single : singles_) {
      if (single != MAP_FAILED) munmap(single, page_);
    }
  }
  NoMappings(const NoMappings&) = delete;
  NoMappings& operator=(const NoMappings&) = delete;

  // False if the system allows too many mappings to take them all.
  bool is_exhausted() const { return is_exhausted_; }

 private:
  static constexpr size_t kPages = 2'200'000;
  const size_t page_ = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  std::byte* data_ = nullptr;
  std::array<void*, 8> singles_ = {};
  bool is_exhausted_ = false;
};

}  // namespace refit
