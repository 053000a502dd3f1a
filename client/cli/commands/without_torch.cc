// The parts of `refit` that continue as `refit-torch` where LibTorch is needed.
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/cli/commands/torch_work.h"

namespace refit::cli {
namespace {

std::vector<std::string> OwnArguments() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  std::vector<std::string> arguments;
  for (std::string argument; std::getline(file, argument, '\0');) arguments.push_back(argument);
  return arguments;
}

absl::Status NoTorch() { return absl::UnimplementedError("this build of refit lacks LibTorch, which that needs"); }

}  // namespace

absl::Status ContinueWithTorch() {
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  const std::string program = (self.parent_path() / "refit-torch").string();
  if (error || access(program.c_str(), X_OK) != 0) return NoTorch();
  std::vector<std::string> arguments = OwnArguments();
  std::vector<char*> argv;
  argv.reserve(arguments.size() + 1);
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  execv(program.c_str(), argv.data());
  return absl::InternalError(absl::StrCat("cannot run ", program, ": ", std::strerror(errno)));
}

absl::StatusOr<std::unique_ptr<Verifier>> MakeVerifier(Expectation&& /*expected*/) { return NoTorch(); }

absl::StatusOr<ConvertedFile> ConvertOffline(const OfflineConvertOptions& /*options*/, const std::string& /*in*/,
                                             const std::string& /*out*/) {
  return NoTorch();
}

}  // namespace refit::cli
