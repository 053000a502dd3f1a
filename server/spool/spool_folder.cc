#include "server/spool/spool_folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "common/safetensors/safetensors.h"
#include "common/wire/digest.h"

namespace refit {
namespace {

constexpr char kRecordsName[] = "models.json";
constexpr char kNewRecordsName[] = ".refit-models.tmp";
constexpr char kLockName[] = "lock";
constexpr absl::string_view kVersionSuffix = ".safetensors";
constexpr absl::string_view kBadSuffix = ".bad";
constexpr size_t kShownModelBytes = 64;
constexpr size_t kModelDigits = 16;
constexpr size_t kNumberDigits = 20;
constexpr size_t kMaxRecordsBytes = 64 << 20;

constexpr char kTakeItAsItIs[] = "or take it as it is with --trust-spool if all who may write there are trusted";

absl::Status CheckOwner(const struct stat& folder, const std::string& path) {
  if (folder.st_uid != geteuid()) {
    return absl::PermissionDeniedError(
        absl::StrCat(Printable(path), " belongs to user ", folder.st_uid, ", not to ", geteuid(),
                     ": whoever may write there decides what is served; name a folder that does not exist yet, or one "
                     "of the service's own, ",
                     kTakeItAsItIs));
  }
  if ((folder.st_mode & (S_IWGRP | S_IWOTH)) == 0) return absl::OkStatus();
  return absl::PermissionDeniedError(
      absl::StrCat(Printable(path), absl::StrFormat(" (mode %04o)", folder.st_mode & 07777),
                   " can be written to by others, who could decide what is served; take that away, such as by chmod "
                   "700, or on a volume that belongs to a group name a folder below it that does not exist yet, ",
                   kTakeItAsItIs));
}

absl::StatusOr<FileDescriptor> OpenFolder(const std::string& path, SpoolOwner owner) {
  if (mkdir(path.c_str(), S_IRWXU) != 0 && errno != EEXIST) return FileError(errno, "make the folder", path);
  FileDescriptor folder(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder.valid() && errno == ENOTDIR) {
    return absl::InvalidArgumentError(absl::StrCat(Printable(path), " is no folder"));
  }
  if (!folder.valid()) return FileError(errno, "open the folder", path);
  struct stat info = {};
  if (fstat(folder.get(), &info) != 0) return FileError(errno, "examine", path);
  if (owner == SpoolOwner::kAnyone) return folder;
  if (absl::Status status = CheckOwner(info, path); !status.ok()) return status;
  return folder;
}

absl::StatusOr<FileDescriptor> TakeLock(int folder, const std::string& path) {
  FileDescriptor lock(openat(folder, kLockName, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, S_IRUSR | S_IWUSR));
  if (!lock.valid()) return FileError(errno, "open the lock of", path);
  if (flock(lock.get(), LOCK_EX | LOCK_NB) == 0) return lock;
  if (errno != EWOULDBLOCK) return FileError(errno, "lock", path);
  return absl::FailedPreconditionError(
      absl::StrCat(Printable(path), " is used by another refit-server; each needs a folder of its own"));
}

// <model>-<16 hexadecimal digits>-<20 digits>.safetensors; the 20 digits may be there twice.
bool IsVersionName(absl::string_view name) {
  if (!absl::ConsumeSuffix(&name, kVersionSuffix) || name.size() < kModelDigits + kNumberDigits + 2) return false;
  const absl::string_view number = name.substr(name.size() - kNumberDigits);
  // If the name has an epoch, these are the last of its digits.
  const absl::string_view model = name.substr(name.size() - kNumberDigits - 1 - kModelDigits, kModelDigits);
  return absl::c_all_of(number, [](unsigned char c) { return absl::ascii_isdigit(c); }) &&
         absl::c_all_of(model, [](unsigned char c) { return absl::ascii_isxdigit(c); });
}

bool IsOwn(absl::string_view name) {
  return name == "." || name == ".." || name == kLockName || name == kRecordsName || absl::EndsWith(name, kBadSuffix);
}

// The value of a member; 0 if there is none.
uint64_t NumberOf(const nlohmann::json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() ? 0 : found->get<uint64_t>();
}

absl::Status WriteAndFlush(int fd, absl::string_view text, absl::string_view path) {
  while (!text.empty()) {
    const ssize_t written = write(fd, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return FileError(errno, "write", path);
    text.remove_prefix(static_cast<size_t>(written));
  }
  return fsync(fd) == 0 ? absl::OkStatus() : FileError(errno, "flush", path);
}

}  // namespace

absl::StatusOr<SpoolFolder> SpoolFolder::Open(const std::string& path, SpoolOwner owner) {
  absl::StatusOr<FileDescriptor> folder = OpenFolder(path, owner);
  if (!folder.ok()) return folder.status();
  absl::StatusOr<FileDescriptor> lock = TakeLock(folder->get(), path);
  if (!lock.ok()) return lock.status();
  return SpoolFolder(path, *std::move(folder), *std::move(lock));
}

absl::StatusOr<SpoolFolder::Contents> SpoolFolder::List() const {
  const std::unique_ptr<DIR, int (*)(DIR*)> folder(opendir(path_.c_str()), closedir);
  if (folder == nullptr) return FileError(errno, "read the folder", path_);
  Contents contents;
  while (const dirent* entry = readdir(folder.get())) {
    const std::string name = entry->d_name;
    if (IsOwn(name)) continue;
    if (SafetensorsWriter::IsTemporary(name)) {
      contents.leftovers.push_back(name);
    } else if (IsVersionName(name)) {
      contents.versions.push_back(name);
    } else {
      contents.foreign.push_back(name);
    }
  }
  return contents;
}

std::string SpoolFolder::PathOf(absl::string_view name) const { return absl::StrCat(path_, "/", name); }

std::string SpoolFolder::NameOf(const std::string& model, const VersionKey& key) {
  std::string shown = model.substr(0, kShownModelBytes);
  for (char& c : shown) {
    if (!absl::ascii_isalnum(static_cast<unsigned char>(c)) && c != '_' && c != '-') c = '_';
  }
  const uint64_t digest = DigestBytes({reinterpret_cast<const std::byte*>(model.data()), model.size()});
  const std::string epoch = key.epoch == 0 ? "" : absl::StrFormat("%020u-", key.epoch);
  return absl::StrFormat("%s-%016x-%s%020u%s", shown, digest, epoch, key.number, kVersionSuffix);
}

bool SpoolFolder::IsNameOf(absl::string_view name, const std::string& model, const VersionKey& key) {
  return name == NameOf(model, key) || name == NameOf(model, {0, key.number});
}

absl::Status SpoolFolder::Remove(absl::string_view name) const {
  const std::string path = PathOf(name);
  return unlink(path.c_str()) == 0 || errno == ENOENT ? absl::OkStatus() : FileError(errno, "remove", path);
}

absl::Status SpoolFolder::Quarantine(absl::string_view name) const {
  const std::string path = PathOf(name);
  const std::string bad = absl::StrCat(path, kBadSuffix);
  return rename(path.c_str(), bad.c_str()) == 0 ? absl::OkStatus() : FileError(errno, "rename", path);
}

absl::StatusOr<SpoolFolder::Records> SpoolFolder::ReadRecords() const try {
  const std::string path = PathOf(kRecordsName);
  absl::StatusOr<MappedFile> file = MappedFile::Open(path);
  if (absl::IsNotFound(file.status())) return Records();
  if (!file.ok()) return file.status();
  if (file->size() > kMaxRecordsBytes) {
    return absl::DataLossError(absl::StrCat(path, " has ", file->size(), " bytes; expected a list of models"));
  }
  Records records;
  const auto json = nlohmann::json::parse(file->data(), file->data() + file->size());
  for (const auto& entry : json.at("models")) {
    records[entry.at("model").get<std::string>()] = {NumberOf(entry, "newest_committed"),
                                                     NumberOf(entry, "trainer_epoch")};
  }
  return records;
} catch (const nlohmann::json::exception& error) {
  return absl::DataLossError(
      absl::StrCat(PathOf(kRecordsName), " cannot be understood: ", Printable(error.what()),
                   "; it says which version numbers were used. Without it a trainer could use them again: remove it "
                   "if that is no matter"));
}

absl::Status SpoolFolder::WriteRecords(const Records& records) const try {
  nlohmann::json models = nlohmann::json::array();
  for (const auto& [model, record] : records) {
    models.push_back(
        {{"model", model}, {"newest_committed", record.newest_committed}, {"trainer_epoch", record.trainer_epoch}});
  }
  const std::string text = nlohmann::json{{"models", models}}.dump(2) + "\n";
  const std::string path = PathOf(kRecordsName);
  const FileDescriptor file(
      openat(folder_.get(), kNewRecordsName, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, S_IRUSR | S_IWUSR));
  if (!file.valid()) return FileError(errno, "create", PathOf(kNewRecordsName));
  if (absl::Status status = WriteAndFlush(file.get(), text, path); !status.ok()) return status;
  if (renameat(folder_.get(), kNewRecordsName, folder_.get(), kRecordsName) != 0) {
    return FileError(errno, "write", path);
  }
  return fsync(folder_.get()) == 0 ? absl::OkStatus() : FileError(errno, "flush", path_);
} catch (const nlohmann::json::exception&) {
  return absl::InvalidArgumentError(
      absl::StrCat("a model's name is no valid UTF-8; ", PathOf(kRecordsName), " cannot be written"));
}

}  // namespace refit
