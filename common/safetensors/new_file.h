// Writes a regular file that appears whole or not at all. For this project's own use.
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

// A new file, or one that replaces an old file. Before Commit it has no name, or a temporary one; see OutputFile.
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
  // Tests on a nameless file of no bytes whether such a file can be given a name. It is not tested on the file itself,
  // because a file whose name was removed cannot get another. False if the file system has no nameless files, or cannot
  // name one.
  bool NameProbe();
  // Creates a file with the permissions that the process gives to new files, which mkostemp would not do.
  absl::Status OpenTemporary(unsigned permissions);
  // Tests whether files can be renamed, so that this is known before all bytes are written.
  absl::Status TryRename();
  absl::Status RenameError(int error) const;
  // Copies owner and permissions of the old file, as if that had been written to. Not all file systems support this,
  // and not all users may do it.
  void TakeOver(const struct stat& old);
  // Gives the file a temporary name. linkat does not replace files, so the final name needs a rename.
  absl::Status Link();
  // Shares and object stores may report only here that they did not store bytes.
  absl::Status Close();
  // The new name survives a crash of the machine only once its folder is flushed.
  void FlushFolder();
  void WarnOfFlush(int error);

  const std::filesystem::path path_;
  const std::filesystem::path folder_;
  std::filesystem::path temporary_;  // its name before Commit, if it has one
  FileDescriptor file_;
};

}  // namespace refit
