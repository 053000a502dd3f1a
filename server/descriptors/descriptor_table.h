// The descriptors that the service passes: lent to workers, and offered by trainers. Each has a key that nobody can
// guess, which only authorised calls tell.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "common/safetensors/posix_file.h"
#include "refit/buffer.h"

namespace refit {

// Thread-safe. It must outlive what it lends.
class DescriptorTable {
 public:
  // `passes`: whether there is a socket. Without one, nothing is lent.
  explicit DescriptorTable(bool passes) : passes_(passes) {}
  DescriptorTable(const DescriptorTable&) = delete;
  DescriptorTable& operator=(const DescriptorTable&) = delete;

  // As long as it lives, its key leads to the memory of a buffer.
  class Loan {
   public:
    Loan() = default;
    Loan(Loan&& other) noexcept;
    Loan& operator=(Loan&&) = delete;
    ~Loan();
    // Empty: the descriptor is not passed.
    const std::string& key() const { return key_; }

   private:
    friend class DescriptorTable;
    Loan(DescriptorTable& table, std::string key) : table_(&table), key_(std::move(key)) {}
    DescriptorTable* table_ = nullptr;
    std::string key_;
  };
  Loan Lend(std::shared_ptr<const Buffer> buffer);

  // A descriptor of what was lent under this key, for reading only. NOT_FOUND if nothing was; UNAVAILABLE, with the
  // reason, if it cannot be opened.
  absl::StatusOr<FileDescriptor> Take(absl::string_view key) const;

  // Keeps a trainer's descriptor until it is claimed or withdrawn. False if the key is taken.
  bool Offer(const std::string& key, FileDescriptor file);
  // What was offered, which then belongs to the caller. Invalid if nothing was.
  FileDescriptor Claim(const std::string& key);
  void Withdraw(const std::string& key) { (void)Claim(key); }

  size_t lent() const;
  size_t offered() const;

 private:
  const bool passes_;
  mutable absl::Mutex mutex_;
  absl::flat_hash_map<std::string, std::shared_ptr<const Buffer>> lent_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<std::string, FileDescriptor> offered_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace refit
