#include "common/tensor/slab.h"

#include <algorithm>
#include <utility>

namespace refit {
namespace {

constexpr size_t kLine = 64;
constexpr size_t kSmall = 64 << 10;
constexpr size_t kFirstBlock = 64 << 10;
constexpr size_t kLargestBlock = 2 << 20;

class Piece final : public Buffer {
 public:
  Piece(std::shared_ptr<Buffer> block, size_t begin, size_t size)
      : Buffer(block->data() + begin, size), block_(std::move(block)) {}

 private:
  const std::shared_ptr<Buffer> block_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<Buffer>> Slab::Get(size_t size, Source source) {
  if (size >= kSmall) return source(size);
  if (block_ == nullptr || size > block_->size() - used_) {
    // Growing, so that few tensors do not take what many need.
    const size_t next = block_ == nullptr ? kFirstBlock : std::min(2 * block_->size(), kLargestBlock);
    absl::StatusOr<std::shared_ptr<Buffer>> block = source(next);
    if (!block.ok()) return block.status();
    block_ = *std::move(block);
    used_ = 0;
  }
  auto piece = std::make_shared<Piece>(block_, used_, size);
  used_ = std::min(block_->size(), used_ + (size + kLine - 1) / kLine * kLine);
  return piece;
}

}  // namespace refit
