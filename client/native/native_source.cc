#include "client/native/native_source.h"

#include <utility>

namespace refit {
namespace {

class CheckpointSource final : public NativeSource {
 public:
  explicit CheckpointSource(std::shared_ptr<const Checkpoint> checkpoint) : checkpoint_(std::move(checkpoint)) {}

  const std::vector<TensorSpec>& tensors() const override { return checkpoint_->tensors(); }

  absl::Span<const std::byte> Read(size_t index, uint64_t offset, uint64_t size,
                                   absl::Span<std::byte> scratch) const override {
    return checkpoint_->Read(index, offset, size, scratch);
  }

  bool is_resident() const override { return checkpoint_->is_mapped(); }

  std::string note() const override { return checkpoint_->note(); }

 private:
  std::shared_ptr<const Checkpoint> checkpoint_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<const NativeSource>> OpenCheckpointSource(const std::string& path,
                                                                         const CheckpointOptions& options) {
  absl::StatusOr<std::shared_ptr<const Checkpoint>> checkpoint = Checkpoint::Open(path, options);
  if (!checkpoint.ok()) return checkpoint.status();
  return MakeCheckpointSource(*std::move(checkpoint));
}

std::shared_ptr<const NativeSource> MakeCheckpointSource(std::shared_ptr<const Checkpoint> checkpoint) {
  return std::make_shared<const CheckpointSource>(std::move(checkpoint));
}

}  // namespace refit
