#include "refit/memory_probe.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace refit {
namespace {

// As in Linux 5.14. Debian's headers define them, older headers do not.
constexpr int kPopulateRead = 22;
constexpr int kPopulateWrite = 23;

// How many pages one mincore covers, with a byte for each.
constexpr size_t kPagesAtOnce = 4096;
using Residency = std::array<unsigned char, kPagesAtOnce>;

// Small tensors are close together, so this many pages beyond one of them are checked too.
constexpr size_t kNeighbourPages = 64;

uintptr_t PageSize() {
  static const auto size = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  return size;
}

void* At(uintptr_t address) { return reinterpret_cast<void*>(address); }

absl::Status Unusable(absl::string_view verb, uintptr_t address, absl::string_view why) {
  return absl::InvalidArgumentError(
      absl::StrCat("its memory cannot be ", verb, " at address 0x", absl::Hex(address), ": ", why));
}

bool IsPopulateKnown() {
  static const bool known = [] {
    const char here = 0;
    return madvise(At(reinterpret_cast<uintptr_t>(&here) / PageSize() * PageSize()), PageSize(), kPopulateRead) == 0;
  }();
  return known;
}

// A system call reads memory as a program would, but gets an error instead of a signal.
bool CanReadByte(uintptr_t address) {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) return true;  // then nothing is known
  const bool readable = write(ends[1], At(address), 1) == 1;
  close(ends[0]);
  close(ends[1]);
  return readable;
}

// Reads in whole pages that are not resident.
absl::Status Populate(uintptr_t begin, uintptr_t end) {
  if (!IsPopulateKnown()) return absl::OkStatus();
  while (madvise(At(begin), end - begin, kPopulateRead) != 0) {
    if (errno == EINTR) continue;
    if (errno == ENOMEM) return Unusable("read", begin, "nothing is mapped there");
    if (errno == EFAULT) {
      return Unusable("read", begin,
                      "the file that is mapped there has no such byte: was it truncated, or is its disk full?");
    }
    if (errno == EHWPOISON) return Unusable("read", begin, "the machine's memory is damaged there");
    // EINVAL: the mapping of a device, or one that must not be read.
    if (errno == EINVAL && !CanReadByte(begin)) return Unusable("read", begin, "it is protected");
    return absl::OkStatus();
  }
  return absl::OkStatus();
}

// Checks whole pages, at most kPagesAtOnce.
absl::Status CheckPages(uintptr_t begin, uintptr_t end) {
  const uintptr_t page = PageSize();
  Residency resident;
  if (mincore(At(begin), end - begin, resident.data()) != 0) {
    // EAGAIN and similar errors tell nothing.
    return errno == ENOMEM ? Unusable("read", begin, "nothing is mapped there") : absl::OkStatus();
  }
  const auto is_in = [](unsigned char state) { return (state & 1) != 0; };
  const auto* const last = resident.data() + (end - begin) / page;
  for (const auto* at = resident.data(); at != last;) {
    const auto* const absent = std::find_if_not(at, last, is_in);
    at = std::find_if(absent, last, is_in);
    if (absent == at) continue;
    const absl::Status status =
        Populate(begin + (absent - resident.data()) * page, begin + (at - resident.data()) * page);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status CheckWritablePage(uintptr_t address) {
  const uintptr_t page = PageSize();
  if (!IsPopulateKnown() || madvise(At(address / page * page), page, kPopulateWrite) == 0) return absl::OkStatus();
  if (errno != EINVAL && errno != EFAULT) return absl::OkStatus();
  return Unusable("written", address, "it is mapped read-only, or protected");
}

}  // namespace

bool MemoryProbe::FindResident(uintptr_t begin, uintptr_t end) {
  if (begin >= seen_begin_ && end <= seen_end_) return true;
  if (end - begin > kNeighbourPages * PageSize()) return false;
  Residency resident;
  // Fails if some neighbouring page is not mapped.
  if (mincore(At(begin), kNeighbourPages * PageSize(), resident.data()) != 0) return false;
  const auto* const absent = std::find_if(resident.begin(), resident.begin() + kNeighbourPages,
                                          [](unsigned char state) { return (state & 1) == 0; });
  seen_begin_ = begin;
  seen_end_ = begin + (absent - resident.begin()) * PageSize();
  return end <= seen_end_;
}

absl::Status MemoryProbe::CheckReadable(absl::Span<const std::byte> bytes) {
  if (bytes.empty()) return absl::OkStatus();
  if (bytes.data() == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("its address is null, but it has ", bytes.size(), " bytes"));
  }
  const uintptr_t page = PageSize();
  const auto first = reinterpret_cast<uintptr_t>(bytes.data());
  if (first + bytes.size() < first) {
    return absl::InvalidArgumentError(absl::StrCat("its ", bytes.size(), " bytes end beyond all addresses"));
  }
  uintptr_t begin = first / page * page;
  const uintptr_t end = begin + ((first - begin + bytes.size() - 1) / page + 1) * page;
  if (FindResident(begin, end)) begin = end;
  for (; begin != end; begin = std::min(end, begin + kPagesAtOnce * page)) {
    const absl::Status status = CheckPages(begin, std::min(end, begin + kPagesAtOnce * page));
    if (!status.ok()) return status;
  }
  // A page may count as resident although its file ends before it: the kernel keeps pages in larger blocks. A file
  // loses its end first.
  return Populate(end - page, end);
}

absl::Status MemoryProbe::CheckWritable(absl::Span<const std::byte> bytes) {
  if (absl::Status status = CheckReadable(bytes); bytes.empty() || !status.ok()) return status;
  const auto first = reinterpret_cast<uintptr_t>(bytes.data());
  if (absl::Status status = CheckWritablePage(first); !status.ok()) return status;
  return CheckWritablePage(first + bytes.size() - 1);
}

}  // namespace refit
