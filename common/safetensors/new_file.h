// A regular file that appears whole or not at all. For this project's own use.
#pragma once

#include <sys/stat.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/safetensors/output_file.h"
#include "common/safetensors/posix_file.h"

namespace refit {

// A new file, or one that replaces an old one. Before Commit it has no name, or a temporary one; see OutputFile.
class NewFile final : public OutputFile {
 public:
  static absl::StatusOr<std::unique_ptr<OutputFile>> Create(const std::filesystem::path& path, unsigned permissions);
  ~NewFile() override;

  absl::Status WriteAt(uint64_t position, absl::Span<const std::byte> bytes) override;
  absl::Status Commit() override;

 private:
  explicit NewFile(std::filesystem::path path)
      : path_(std::move(path)), folder_(path_.has_parent_path() ? path_.parent_path() : ".") {}

  absl::Status Open(unsigned permissions);
  // Gives a name to a nameless file of no bytes: a file whose name is taken away again gets no other. False where there
  // are no such files, or no way to name one.
  bool NameProbe();
  // Creates a file with the permissions that the process gives to any new file, which mkostemp would not.
  absl::Status OpenTemporary(unsigned permissions);
  // Finds out before all bytes have come whether files can be renamed, rather than after.
  absl::Status TryRename();
  absl::Status RenameError(int error) const;
  // Takes over owner and permissions, as if the old file had been written to. Not all file systems have them, nor may
  // all users set them.
  void TakeOver(const struct stat& old);
  // Gives the file a temporary name: linkat replaces nothing, so only a rename leads to the name that is wanted.
  absl::Status Link();
  // Shares and object stores may report only now that they did not store bytes.
  absl::Status Close();
  // The new name outlasts a crash of the machine only once its folder is flushed.
  void FlushFolder();
  void WarnOfFlush(int error);

  const std::filesystem::path path_;
  const std::filesystem::path folder_;
  std::filesystem::path temporary_;  // its name before Commit, if it has one
  FileDescriptor file_;
};

}  // namespace refit
