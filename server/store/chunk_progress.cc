#include "server/store/chunk_progress.h"

#include <algorithm>

#include "common/wire/digest.h"

namespace refit {
namespace {

// How many elements of the runs are before element `end`.
uint64_t CountBefore(const StridedRuns& runs, int64_t end) {
  const int64_t from_first = end - runs.first;
  if (from_first <= 0) return 0;
  const int64_t whole = std::min(runs.count, from_first / runs.stride);
  const int64_t of_next = whole < runs.count ? std::min(runs.length, from_first - whole * runs.stride) : 0;
  return static_cast<uint64_t>(whole * runs.length + of_next);
}

}  // namespace

void ChunkCounts::AddTo(uint64_t chunk, uint64_t bytes) {
  if (counts_.empty()) first_ = chunk;
  if (chunk < first_) {
    counts_.insert(counts_.begin(), first_ - chunk, 0);
    first_ = chunk;
  }
  if (chunk - first_ >= counts_.size()) counts_.resize(chunk - first_ + 1, 0);
  counts_[chunk - first_] += bytes;
}

void ChunkCounts::Add(const StridedRuns& runs) {
  const uint64_t begin = static_cast<uint64_t>(runs.first) * element_bytes_;
  const uint64_t last_run = static_cast<uint64_t>(runs.first + (runs.count - 1) * runs.stride);
  const uint64_t end = (last_run + static_cast<uint64_t>(runs.length)) * element_bytes_;
  uint64_t counted = 0;
  for (uint64_t chunk = begin / chunk_bytes_; chunk * chunk_bytes_ < end; ++chunk) {
    const uint64_t chunk_end = std::min(bytes_, (chunk + 1) * chunk_bytes_);
    const uint64_t before = CountBefore(runs, static_cast<int64_t>(chunk_end / element_bytes_)) * element_bytes_;
    if (before > counted) AddTo(chunk, before - counted);
    counted = before;
  }
}

ChunkProgress::ChunkProgress(uint64_t bytes, uint64_t chunk_bytes) {
  missing_.resize(ChunkCount(bytes, chunk_bytes), chunk_bytes);
  missing_.back() = bytes - (missing_.size() - 1) * chunk_bytes;
}

ChunkProgress::Chunks ChunkProgress::Take(const ChunkCounts& counts) {
  Chunks whole;
  for (size_t i = 0; i < counts.counts().size(); ++i) {
    if (counts.counts()[i] == 0) continue;
    const uint64_t chunk = counts.first_chunk() + i;
    missing_[chunk] -= counts.counts()[i];
    if (missing_[chunk] == 0) whole.push_back(chunk);
  }
  return whole;
}

}  // namespace refit
