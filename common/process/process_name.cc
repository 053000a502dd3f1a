#include "common/process/process_name.h"

#include <unistd.h>

#include <array>

#include "absl/strings/str_cat.h"

namespace refit {

std::string HostAndProcess() {
  std::array<char, 256> host = {};
  if (gethostname(host.data(), host.size() - 1) != 0) host[0] = '\0';
  return absl::StrCat(host[0] != '\0' ? host.data() : "localhost", "/", getpid());
}

}  // namespace refit
