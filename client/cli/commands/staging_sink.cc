#include "client/cli/commands/staging_sink.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cli/commands/tensor_file.h"
#include "client/cli/terminal/format.h"

namespace refit::cli {
namespace {

constexpr uint64_t kStagedBytes = 1 << 30;
// Used memory is kept: the first touch of new pages can cost more than receiving into them.
constexpr uint64_t kIdleBytes = 4ull << 30;

}  // namespace

StagingSink::StagingSink(TransferProgress& progress, std::string out_path, std::unique_ptr<Verifier> verifier,
                         bool whole)
    : progress_(progress),
      out_path_(std::move(out_path)),
      verifier_(std::move(verifier)),
      whole_(whole),
      pool_(kIdleBytes, BufferPool::Fit::kLoose),
      thread_([this] { Work(); }) {}

StagingSink::~StagingSink() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
    queue_.clear();
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

absl::Status StagingSink::Begin(const VersionSummary& version, const std::vector<TensorPart>& tensors) {
  tensors_ = tensors;
  for (const TensorPart& tensor : tensors) manifest_bytes_ += tensor.ByteSize();
  progress_.Start(manifest_bytes_,
                  absl::StrCat("version ", version.version, ", ", FormatCount(tensors.size(), "tensor"), ", ",
                               FormatBytes(manifest_bytes_)));
  if (verifier_ != nullptr) {
    const absl::Status status = verifier_->CheckManifest(tensors, whole_);
    if (!status.ok()) return status;
  }
  if (out_path_.empty()) return absl::OkStatus();
  absl::StatusOr<std::unique_ptr<SafetensorsWriter>> writer = CreateTensorFile(out_path_, version, tensors);
  if (!writer.ok()) return writer.status();
  writer_ = *std::move(writer);
  return absl::OkStatus();
}

absl::StatusOr<absl::Span<std::byte>> StagingSink::Place(size_t index) {
  const uint64_t size = tensors_[index].ByteSize();
  {
    std::unique_lock<std::mutex> lock(mutex_);
    stall_watch_.Time([&] {
      changed_.wait(lock, [&] { return staged_bytes_ == 0 || staged_bytes_ + size <= kStagedBytes || !status_.ok(); });
    });
    if (!status_.ok()) return status_;
  }
  absl::StatusOr<std::shared_ptr<Buffer>> memory = pool_.Get(std::max<uint64_t>(size, 1));
  if (!memory.ok()) return memory.status();
  const absl::Span<std::byte> bytes = (*memory)->span().first(size);
  receiving_[index] = {index, *std::move(memory), bytes};
  return bytes;
}

absl::Status StagingSink::Done(size_t index) {
  const std::lock_guard<std::mutex> lock(mutex_);
  queue_.push_back(std::move(receiving_.extract(index).mapped()));
  staged_bytes_ += queue_.back().bytes.size();
  changed_.notify_all();
  return status_;
}

absl::Status StagingSink::Finish() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
  }
  changed_.notify_all();
  thread_.join();
  return status_;
}

absl::Status StagingSink::Commit() {
  if (writer_ == nullptr) return absl::OkStatus();
  const absl::Status status = write_watch_.Time([&] { return writer_->Commit(); });
  if (status.ok()) WarnOfFile(writer_->warning());
  return status;
}

void StagingSink::Work() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return closed_ || !queue_.empty(); });
    if (queue_.empty()) return;
    Staged staged = std::move(queue_.front());
    queue_.pop_front();
    const uint64_t size = staged.bytes.size();
    if (status_.ok()) {
      lock.unlock();
      const absl::Status status = Process(staged);
      staged = {};  // before the next tensor is received, which may reuse this memory
      lock.lock();
      status_.Update(status);
    }
    staged_bytes_ -= size;
    changed_.notify_all();
  }
}

absl::Status StagingSink::Process(const Staged& staged) {
  if (verifier_ != nullptr) {
    const absl::Status status =
        verify_watch_.Time([&] { return verifier_->CheckTensor(tensors_[staged.index], staged.bytes); });
    if (!status.ok()) return status;
  }
  if (writer_ == nullptr) return absl::OkStatus();
  return write_watch_.Time([&] { return writer_->WriteAt(staged.index, 0, staged.bytes); });
}

}  // namespace refit::cli
