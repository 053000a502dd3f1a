#include "client/trainer/shared_ring.h"

#include <string>
#include <utility>

#include "absl/memory/memory.h"
#include "common/net/descriptor_messages.h"
#include "common/net/shared_segment.h"
#include "common/tensor/buffer_pool.h"

namespace refit {

SharedRing::SharedRing(std::shared_ptr<Buffer> memory)
    : memory_(std::move(memory)), announcement_(Announce(*memory_)) {}

absl::StatusOr<std::unique_ptr<SharedRing>> SharedRing::Create(uint64_t bytes) {
  absl::Status unshared;
  BufferPool pool(0, BufferPool::Fit::kExact, nullptr, Backing::kShared,
                  [&unshared](const absl::Status& why) { unshared = why; });
  absl::StatusOr<std::shared_ptr<Buffer>> memory = pool.Get(bytes);
  if (!memory.ok()) return memory.status();
  if (!unshared.ok()) return unshared;
  auto ring = absl::WrapUnique(new SharedRing(*std::move(memory)));
  if (ring->announcement_.bytes() == 0) return absl::UnavailableError("too little memory to be shared");
  return ring;
}

FileDescriptor SharedRing::OfferTo(const DescriptorClient& service) {
  std::string key = service.has_path() ? NewDescriptorKey() : "";
  if (key.empty()) return FileDescriptor();
  absl::StatusOr<FileDescriptor> offered = service.Offer(key, memory_->shared_fd());
  if (!offered.ok()) return FileDescriptor();
  announcement_.set_key(std::move(key));
  return *std::move(offered);
}

std::optional<uint64_t> SharedRing::FindRoom(uint64_t bytes) const {
  const uint64_t size = memory_->size();
  if (pieces_.empty()) return bytes <= size ? std::optional<uint64_t>(0) : std::nullopt;
  const uint64_t oldest = pieces_.front().begin;
  if (end_ > oldest) {
    if (bytes <= size - end_) return end_;
    return bytes <= oldest ? std::optional<uint64_t>(0) : std::nullopt;
  }
  return bytes <= oldest - end_ ? std::optional<uint64_t>(end_) : std::nullopt;
}

std::optional<uint64_t> SharedRing::Reserve(uint64_t bytes, uint64_t sent_bytes) {
  const std::optional<uint64_t> begin = FindRoom(bytes);
  if (!begin.has_value()) return std::nullopt;
  pieces_.push_back({*begin, sent_bytes});
  end_ = *begin + bytes;
  return begin;
}

void SharedRing::Release(uint64_t handled_bytes) {
  while (!pieces_.empty() && pieces_.front().sent_bytes <= handled_bytes) pieces_.pop_front();
}

}  // namespace refit
