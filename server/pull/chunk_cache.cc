#include "server/pull/chunk_cache.h"

namespace refit {

std::shared_ptr<const Buffer> ChunkCache::Find(const void* part, uint64_t chunk) {
  absl::MutexLock lock(&mutex_);
  const auto found = index_.find({part, chunk});
  if (found == index_.end()) return nullptr;
  entries_.splice(entries_.end(), entries_, found->second);
  found_bytes_ += found->second->data->size();
  return found->second->data;
}

void ChunkCache::Insert(const void* part, uint64_t chunk, std::shared_ptr<const Buffer> data) {
  absl::MutexLock lock(&mutex_);
  inserted_bytes_ += data->size();
  bytes_ += data->size();
  entries_.push_back({{part, chunk}, std::move(data)});
  index_[{part, chunk}] = std::prev(entries_.end());
  while (bytes_ > max_bytes_) Erase(entries_.begin());
}

bool ChunkCache::Holds(const void* part) const {
  absl::MutexLock lock(&mutex_);
  const auto found = index_.lower_bound({part, 0});
  return found != index_.end() && found->first.first == part;
}

void ChunkCache::Drop(const void* part) {
  absl::MutexLock lock(&mutex_);
  for (auto it = index_.lower_bound({part, 0}); it != index_.end() && it->first.first == part;) Erase((it++)->second);
}

void ChunkCache::Erase(std::list<Entry>::iterator entry) {
  bytes_ -= entry->data->size();
  index_.erase(entry->key);
  entries_.erase(entry);
}

uint64_t ChunkCache::inserted_bytes() const {
  absl::MutexLock lock(&mutex_);
  return inserted_bytes_;
}

uint64_t ChunkCache::found_bytes() const {
  absl::MutexLock lock(&mutex_);
  return found_bytes_;
}

}  // namespace refit
