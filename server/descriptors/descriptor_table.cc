#include "server/descriptors/descriptor_table.h"

#include <fcntl.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/limits/process_limits.h"
#include "common/net/descriptor_messages.h"

namespace refit {

DescriptorTable::Loan::Loan(Loan&& other) noexcept
    : table_(std::exchange(other.table_, nullptr)), key_(std::move(other.key_)) {}

DescriptorTable::Loan::~Loan() {
  if (table_ == nullptr) return;
  std::shared_ptr<const Buffer> buffer;  // freed without the lock
  const absl::MutexLock lock(&table_->mutex_);
  const auto lent = table_->lent_.find(key_);
  buffer = std::move(lent->second);
  table_->lent_.erase(lent);
}

DescriptorTable::Loan DescriptorTable::Lend(std::shared_ptr<const Buffer> buffer) {
  if (!passes_ || buffer->shared_fd() < 0) return {};
  std::string key = NewDescriptorKey();
  if (key.empty()) return {};
  const absl::MutexLock lock(&mutex_);
  lent_.emplace(key, std::move(buffer));
  return Loan(*this, std::move(key));
}

absl::StatusOr<FileDescriptor> DescriptorTable::Take(absl::string_view key) const {
  std::shared_ptr<const Buffer> buffer;  // keeps the descriptor open
  {
    const absl::MutexLock lock(&mutex_);
    const auto lent = lent_.find(key);
    if (lent == lent_.end()) return absl::NotFoundError("nothing was lent under this key");
    buffer = lent->second;
  }
  FileDescriptor file(open(absl::StrCat("/proc/self/fd/", buffer->shared_fd()).c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) return absl::UnavailableError(WhyNotOpened(errno));
  return file;
}

bool DescriptorTable::Offer(const std::string& key, FileDescriptor file) {
  const absl::MutexLock lock(&mutex_);
  return offered_.try_emplace(key, std::move(file)).second;
}

FileDescriptor DescriptorTable::Claim(const std::string& key) {
  const absl::MutexLock lock(&mutex_);
  const auto offered = offered_.find(key);
  if (offered == offered_.end()) return FileDescriptor();
  FileDescriptor file = std::move(offered->second);
  offered_.erase(offered);
  return file;
}

size_t DescriptorTable::lent() const {
  const absl::MutexLock lock(&mutex_);
  return lent_.size();
}

size_t DescriptorTable::offered() const {
  const absl::MutexLock lock(&mutex_);
  return offered_.size();
}

}  // namespace refit
