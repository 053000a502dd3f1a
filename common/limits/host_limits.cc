#include "common/limits/host_limits.h"

#include <sched.h>
#include <sys/resource.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace refit {
namespace {

// One hierarchy of control groups: that of v2, or of one controller of v1.
struct Hierarchy {
  bool is_v2 = false;
  std::string mounted_at;
  std::string mounted_root;  // the group mounted at mounted_at; a container may see only its own
};

std::vector<std::string> Lines(const std::string& path) {
  std::ifstream file(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

bool HasWord(absl::string_view list, absl::string_view word) {
  const std::vector<absl::string_view> words = absl::StrSplit(list, ',');
  return std::find(words.begin(), words.end(), word) != words.end();
}

// Where a controller's groups are mounted. Lines: "ID PARENT MAJOR:MINOR ROOT MOUNTED_AT OPTIONS... - TYPE SOURCE
// OPTIONS".
std::vector<Hierarchy> HierarchiesOf(absl::string_view controller, const std::string& root) {
  std::vector<Hierarchy> found;
  for (const std::string& line : Lines(root + "/proc/self/mountinfo")) {
    const std::vector<std::string> halves = absl::StrSplit(line, absl::MaxSplits(" - ", 1));
    if (halves.size() != 2) continue;
    const std::vector<std::string> where = absl::StrSplit(halves[0], ' ');
    const std::vector<std::string> what = absl::StrSplit(halves[1], ' ');
    if (where.size() < 5 || what.size() < 3) continue;
    const bool is_v2 = what[0] == "cgroup2";
    if (!is_v2 && !(what[0] == "cgroup" && HasWord(what[2], controller))) continue;
    found.push_back({is_v2, where[4], where[3]});
  }
  return found;
}

// The process's group within a hierarchy. Lines: "ID:CONTROLLERS:/PATH", without controllers for v2. Empty: none.
std::string GroupIn(const Hierarchy& hierarchy, absl::string_view controller, const std::string& root) {
  for (const std::string& line : Lines(root + "/proc/self/cgroup")) {
    const std::vector<std::string> fields = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (fields.size() != 3) continue;
    if (hierarchy.is_v2 ? fields[1].empty() : HasWord(fields[1], controller)) return fields[2];
  }
  return "";
}

// A group's path relative to the mount, "/a/b". Empty for the mounted group itself, and for a group outside of it.
std::string BelowMount(const Hierarchy& hierarchy, absl::string_view group) {
  if (hierarchy.mounted_root != "/" && !absl::ConsumePrefix(&group, hierarchy.mounted_root)) return "";
  return absl::StartsWith(group, "/") && !absl::StrContains(group, "..") ? std::string(group) : "";
}

// The folders of the process's group and of all groups above it that are visible here. For a group outside of the
// mount, the mount itself.
std::vector<std::string> GroupFolders(absl::string_view controller, const std::string& root) {
  std::vector<std::string> folders;
  for (const Hierarchy& hierarchy : HierarchiesOf(controller, root)) {
    const std::string below = BelowMount(hierarchy, GroupIn(hierarchy, controller, root));
    for (size_t end = below.size(); end > 0; end = below.rfind('/', end - 1)) {
      folders.push_back(absl::StrCat(hierarchy.mounted_at, below.substr(0, end)));
    }
    folders.push_back(hierarchy.mounted_at);
  }
  return folders;
}

std::optional<uint64_t> ReadNumber(const std::string& path) {
  std::ifstream file(path);
  std::string word;
  uint64_t number = 0;
  if (!(file >> word) || !absl::SimpleAtoi(word, &number)) return std::nullopt;  // "max" or "-1": no limit
  return number;
}

std::optional<uint64_t> MachineMemory(const std::string& root) {
  for (const std::string& line : Lines(root + "/proc/meminfo")) {
    std::istringstream words(line);
    std::string name;
    uint64_t kib = 0;
    if (words >> name >> kib && name == "MemTotal:") return kib << 10;
  }
  return std::nullopt;
}

int CpusToRunOn() {
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  // This fails on machines with more than 1024 CPUs.
  if (sched_getaffinity(0, sizeof(cpus), &cpus) == 0) return CPU_COUNT(&cpus);
  return static_cast<int>(std::thread::hardware_concurrency());
}

// CPUs of a group's quota, rounded up: v2's "QUOTA PERIOD", or v1's two files. nullopt: no limit.
std::optional<uint64_t> QuotaOf(const std::string& folder) {
  std::optional<uint64_t> quota = ReadNumber(folder + "/cpu.cfs_quota_us");
  std::optional<uint64_t> period = ReadNumber(folder + "/cpu.cfs_period_us");
  std::ifstream both(folder + "/cpu.max");
  std::string quota_word;
  uint64_t period_us = 0;
  uint64_t quota_us = 0;
  if (both >> quota_word >> period_us && absl::SimpleAtoi(quota_word, &quota_us)) {
    quota = quota_us;
    period = period_us;
  }
  if (!quota.has_value() || period.value_or(0) == 0) return std::nullopt;
  return (*quota + *period - 1) / *period;
}

}  // namespace

MemoryLimit LeastMemoryLimit(const std::string& root) {
  MemoryLimit least{std::numeric_limits<uint64_t>::max(), ""};
  const auto consider = [&least](std::optional<uint64_t> bytes, const std::string& source) {
    if (bytes.has_value() && *bytes < least.bytes) least = {*bytes, source};
  };
  consider(MachineMemory(root), "the machine's memory");
  rlimit addresses = {};
  if (getrlimit(RLIMIT_AS, &addresses) == 0 && addresses.rlim_cur != RLIM_INFINITY) {
    consider(addresses.rlim_cur, "ulimit -v");
  }
  for (const std::string& folder : GroupFolders("memory", root)) {
    for (const char* file : {"memory.max", "memory.high", "memory.limit_in_bytes"}) {
      const std::string path = absl::StrCat(folder, "/", file);
      consider(ReadNumber(root + path), path);
    }
  }
  return least.source.empty() ? MemoryLimit{} : least;
}

int UsableCpus(const std::string& root) {
  int cpus = CpusToRunOn();
  for (const std::string& folder : GroupFolders("cpu", root)) {
    const std::optional<uint64_t> quota = QuotaOf(root + folder);
    if (quota.has_value() && *quota < static_cast<uint64_t>(cpus)) cpus = static_cast<int>(*quota);
  }
  return std::max(1, cpus);
}

}  // namespace refit
