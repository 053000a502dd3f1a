#include "client/worker/staged_deltas.h"

#include <algorithm>
#include <atomic>
#include <functional>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

#include "common/limits/host_limits.h"
#include "common/limits/within_memory.h"
#include "common/wire/digest.h"

namespace refit {
namespace {

constexpr int kMostThreads = 4;

// Calls `work` for each index, from this thread and others. After an error the rest is left undone. Exceptions do not
// leave a thread.
absl::Status ForAllTogether(size_t count, const std::function<absl::Status(size_t index, RangeDelta& delta)>& work) {
  std::atomic<size_t> next = 0;
  std::atomic<bool> failed = false;
  std::mutex mutex;
  absl::Status first;  // error, guarded by mutex
  const auto run = [&] {
    const absl::Status status = WithinMemory("applying what has changed", [&]() -> absl::Status {
      RangeDelta delta;
      for (size_t index = next++; index < count && !failed; index = next++) {
        if (absl::Status done = work(index, delta); !done.ok()) return done;
      }
      return absl::OkStatus();
    });
    if (status.ok()) return;
    const std::lock_guard lock(mutex);
    if (!failed.exchange(true)) first = status;
  };
  std::vector<std::thread> threads;
  const size_t wanted = std::min<size_t>(count, static_cast<size_t>(std::min(kMostThreads, UsableCpus())));
  for (size_t i = 1; i < wanted; ++i) {
    try {
      threads.emplace_back(run);
    } catch (const std::system_error&) {
      break;  // the process may start no more: this one does it all
    }
  }
  run();
  for (std::thread& thread : threads) thread.join();
  return first;
}

}  // namespace

void StagedDeltas::Take(const PulledChunk& chunk) {
  std::vector<Chunk>& chunks = tensors_.back().chunks;
  if (chunk.offset == 0) {
    for (const Chunk& before : chunks) bytes_ -= before.payload.size();
    chunks.clear();
  }
  if (chunk.payload.empty()) return;  // nothing has changed
  chunks.push_back({chunk.is_delta, chunk.offset, chunk.bytes, {chunk.payload.begin(), chunk.payload.end()}});
  bytes_ += chunk.payload.size();
}

absl::StatusOr<uint64_t> StagedDeltas::Preview(uint64_t block_bytes) {
  ManifestDigester manifest;
  for (const Tensor& tensor : tensors_) {
    const absl::StatusOr<uint64_t> digest = Preview(tensor, block_bytes);
    if (!digest.ok()) return digest.status();
    manifest.Add(tensor.part, *digest);
  }
  return manifest.Finish();
}

absl::StatusOr<uint64_t> StagedDeltas::Preview(const Tensor& tensor, uint64_t block_bytes) {
  TensorDigester digester(block_bytes);
  uint64_t at = 0;
  for (const Chunk& chunk : tensor.chunks) {
    digester.Update(tensor.memory.subspan(at, chunk.offset - at));
    at = chunk.offset + chunk.bytes;
    if (!chunk.is_delta) {
      digester.Update(chunk.payload);
      continue;
    }
    absl::Status status = delta_.Read(chunk.payload, chunk.bytes, ElementSize(tensor.part.tensor.dtype));
    if (status.ok()) status = delta_.Digest(direction_, tensor.memory.subspan(chunk.offset, chunk.bytes), digester);
    if (!status.ok()) return status;
  }
  digester.Update(tensor.memory.subspan(at));
  return digester.Finish();
}

absl::Status StagedDeltas::Apply() {
  std::vector<std::pair<const Tensor*, Chunk*>> work;
  for (Tensor& tensor : tensors_) {
    for (Chunk& chunk : tensor.chunks) work.emplace_back(&tensor, &chunk);
  }
  const absl::Status status = ForAllTogether(work.size(), [&](size_t index, RangeDelta& delta) {
    return Apply(*work[index].first, *work[index].second, delta);
  });
  if (!status.ok()) return status;
  direction_ = direction_ == Direction::kForward ? Direction::kBack : Direction::kForward;
  return absl::OkStatus();
}

absl::Status StagedDeltas::Apply(const Tensor& tensor, Chunk& chunk, RangeDelta& delta) const {
  const absl::Span<std::byte> range = tensor.memory.subspan(chunk.offset, chunk.bytes);
  if (!chunk.is_delta) {
    std::swap_ranges(range.begin(), range.end(), chunk.payload.begin());
    return absl::OkStatus();
  }
  absl::Status status = delta.Read(chunk.payload, chunk.bytes, ElementSize(tensor.part.tensor.dtype));
  return status.ok() ? delta.Change(direction_, range) : status;
}

}  // namespace refit
