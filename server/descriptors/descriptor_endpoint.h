// Passes descriptors over a Unix socket beside the service's own.
#pragma once

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "server/descriptors/descriptor_table.h"

namespace refit {

// Serves until it is destroyed. The socket's file is then removed.
class DescriptorEndpoint {
 public:
  // Serves at DescriptorPath(unix_path). `mode`: permissions of the socket; nullopt: what the umask leaves. `table`
  // must outlive it. UNAVAILABLE, naming the path, if it cannot listen there: somebody does, or something else is
  // there.
  static absl::StatusOr<std::unique_ptr<DescriptorEndpoint>> Start(const std::string& unix_path,
                                                                   std::optional<mode_t> mode, DescriptorTable& table);
  ~DescriptorEndpoint();

 private:
  class Loop;
  explicit DescriptorEndpoint(std::unique_ptr<Loop> loop);
  std::unique_ptr<Loop> loop_;
};

}  // namespace refit
