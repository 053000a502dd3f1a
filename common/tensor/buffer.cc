#include "common/tensor/buffer.h"

#include <cstdlib>

#include "absl/status/status.h"

namespace refit {
namespace {

class HeapBuffer final : public Buffer {
 public:
  HeapBuffer(std::unique_ptr<std::byte[]> bytes, size_t size) : Buffer(bytes.get(), size), bytes_(std::move(bytes)) {}

 private:
  std::unique_ptr<std::byte[]> bytes_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<Buffer>> Buffer::Allocate(size_t size) {
  return std::make_shared<HeapBuffer>(std::make_unique<std::byte[]>(size), size);
}

class BufferPool::State {};

BufferPool::BufferPool(uint64_t) {}
BufferPool::~BufferPool() = default;
absl::StatusOr<std::shared_ptr<Buffer>> BufferPool::Get(size_t size) { return Buffer::Allocate(size); }
void BufferPool::TrimTo(uint64_t) {}
uint64_t BufferPool::used_bytes() const { return 0; }
uint64_t BufferPool::idle_bytes() const { return 0; }

}  // namespace refit
