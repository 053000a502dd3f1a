#include "common/limits/process_limits.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <fstream>
#include <iterator>
#include <optional>

#include "absl/strings/str_cat.h"

namespace refit {
namespace {

constexpr uint64_t kMostReservedDescriptors = 512;
constexpr uint64_t kMostReservedAddresses = uint64_t{256} << 20;
constexpr char kRaiseDescriptors[] = "raise `ulimit -n`, or LimitNOFILE of its unit";

// nullopt: no limit.
std::optional<uint64_t> LimitOn(int resource) {
  rlimit limit = {};
  if (getrlimit(static_cast<__rlimit_resource>(resource), &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) {
    return std::nullopt;
  }
  return limit.rlim_cur;
}

uint64_t AddressesUsed() {
  std::ifstream statm("/proc/self/statm");
  uint64_t pages = 0;
  statm >> pages;
  return pages * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

uint64_t MappingsUsed() {
  std::ifstream maps("/proc/self/maps");
  return std::count(std::istreambuf_iterator<char>(maps), std::istreambuf_iterator<char>(), '\n');
}

std::optional<uint64_t> MappingLimit() {
  std::ifstream file("/proc/sys/vm/max_map_count");
  uint64_t limit = 0;
  return file >> limit ? std::optional(limit) : std::nullopt;
}

std::string AddressLimitReached(uint64_t bytes, uint64_t used, uint64_t limit) {
  return absl::StrCat("its addresses are limited to ", limit, " bytes (ulimit -v), ", used, " are in use, and ", bytes,
                      " more were asked for; raise that limit, or lower --memory");
}

}  // namespace

absl::Status CheckDescriptorsLeft(int newest) {
  const std::optional<uint64_t> limit = LimitOn(RLIMIT_NOFILE);
  if (!limit.has_value()) return absl::OkStatus();
  const uint64_t reserved = std::min(*limit / 2, kMostReservedDescriptors);
  if (static_cast<uint64_t>(newest) < *limit - reserved) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("this process has ", newest, " of at most ", *limit,
                                                   " descriptors open, and the last ", reserved,
                                                   " are kept for connections and for itself; ", kRaiseDescriptors));
}

absl::Status CheckFileSize(uint64_t bytes) {
  const std::optional<uint64_t> limit = LimitOn(RLIMIT_FSIZE);
  if (!limit.has_value() || bytes <= *limit) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("shared memory is a file, of ", bytes,
                                                   " bytes here, and files of this process are limited to ", *limit,
                                                   " bytes; raise `ulimit -f`, or LimitFSIZE of its unit"));
}

bool IsMemoryCountedStrictly() {
  std::ifstream file("/proc/sys/vm/overcommit_memory");
  int mode = 0;
  return file >> mode && mode == 2;
}

absl::Status CheckAddressesLeft(uint64_t bytes) {
  const std::optional<uint64_t> limit = LimitOn(RLIMIT_AS);
  if (!limit.has_value()) return absl::OkStatus();
  const uint64_t reserved = std::min(*limit / 8, kMostReservedAddresses);
  const uint64_t used = AddressesUsed();
  if (used <= *limit - reserved && bytes <= *limit - reserved - used) return absl::OkStatus();
  return absl::ResourceExhaustedError(AddressLimitReached(bytes, used, *limit));
}

absl::Status CheckMappingsLeft() {
  // A page with other protection than its neighbours takes two mappings.
  constexpr size_t kReserved = 128;
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t bytes = (kReserved + 1) * page;
  void* const mapped = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  bool are_left = mapped != MAP_FAILED;
  for (size_t at = 1; are_left && at < kReserved; at += 2) {
    are_left = mprotect(static_cast<std::byte*>(mapped) + at * page, page, PROT_READ) == 0;
  }
  const int error = errno;
  if (mapped != MAP_FAILED) munmap(mapped, bytes);
  return are_left ? absl::OkStatus() : absl::ResourceExhaustedError(WhyNotMapped(0, error));
}

uint64_t MostMappingsOfMemory() {
  constexpr uint64_t kUsualLimit = 65530;
  static const uint64_t most = MappingLimit().value_or(kUsualLimit) / 4;
  return most;
}

std::string WhyNotMapped(uint64_t bytes, int error) {
  if (error != ENOMEM) return std::strerror(error);
  constexpr uint64_t kNear = 200;  // the reserved mappings and some more
  const std::optional<uint64_t> most = MappingLimit();
  const uint64_t mappings = most.has_value() ? MappingsUsed() : 0;
  if (most.has_value() && mappings + kNear >= *most) {
    return absl::StrCat("this process has ", mappings, " mappings, and vm.max_map_count allows ", *most,
                        "; raise it (sysctl -w vm.max_map_count=", std::max<uint64_t>(4 * *most, 262144), ")");
  }
  const std::optional<uint64_t> addresses = LimitOn(RLIMIT_AS);
  if (addresses.has_value()) {
    if (const uint64_t used = AddressesUsed(); used + bytes >= *addresses) {
      return AddressLimitReached(bytes, used, *addresses);
    }
  }
  return absl::StrCat("the system has no ", bytes, " bytes to give (see vm.overcommit_memory, ulimit -d)");
}

std::string WhyNotOpened(int error) {
  if (error == EMFILE) {
    return absl::StrCat("all ", LimitOn(RLIMIT_NOFILE).value_or(0),
                        " descriptors that this process may have are open; ", kRaiseDescriptors);
  }
  if (error == ENFILE) return "the system has no descriptors left; raise fs.file-max";
  return std::strerror(error);
}

}  // namespace refit
