#include "server/pull/packed_chunks.h"

namespace refit {

std::shared_ptr<const Buffer> PackedChunks::Find(const VersionPart* part, uint64_t chunk) {
  absl::MutexLock lock(&mutex_);
  const auto found = index_.find({part, chunk});
  if (found == index_.end()) return nullptr;
  entries_.splice(entries_.end(), entries_, found->second);
  shared_bytes_ += found->second->data->size();
  return found->second->data;
}

void PackedChunks::Insert(const VersionPart* part, uint64_t chunk, std::shared_ptr<const Buffer> data) {
  absl::MutexLock lock(&mutex_);
  packed_bytes_ += data->size();
  bytes_ += data->size();
  entries_.push_back({{part, chunk}, std::move(data)});
  index_[{part, chunk}] = std::prev(entries_.end());
  while (bytes_ > max_bytes_) Erase(entries_.begin());
}

void PackedChunks::Drop(const VersionPart* part) {
  absl::MutexLock lock(&mutex_);
  for (auto it = index_.lower_bound({part, 0}); it != index_.end() && it->first.first == part;) Erase((it++)->second);
}

void PackedChunks::Erase(std::list<Entry>::iterator entry) {
  bytes_ -= entry->data->size();
  index_.erase(entry->key);
  entries_.erase(entry);
}

uint64_t PackedChunks::packed_bytes() const {
  absl::MutexLock lock(&mutex_);
  return packed_bytes_;
}

uint64_t PackedChunks::shared_bytes() const {
  absl::MutexLock lock(&mutex_);
  return shared_bytes_;
}

}  // namespace refit
