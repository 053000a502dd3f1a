// The tensors of a pull that several connections receive together, and the sink that they are for.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "refit/box.h"
#include "refit/pull.h"

namespace refit {

// Connections get memory for their parts, and tell when one is there; the thread that pulls calls the sink, in the
// tensors' order. Functions of connections are thread-safe, the others are for the thread that pulls.
class JointTensors {
 public:
  // How far one connection may be ahead of the others, for sinks that want memory for each tensor that has begun.
  static constexpr uint64_t kMostAheadBytes = 1 << 30;

  // Both must outlive it. TensorSink::Begin was called already.
  JointTensors(TensorSink& sink, const std::vector<TensorPart>& tensors, uint64_t chunk_bytes,
               uint64_t most_ahead_bytes = kMostAheadBytes);

  // So many connections begin now.
  void Expect(size_t connections);
  // Returns once all of them have ended, and what is whole was handed to the sink. After the first error, which it
  // returns, it calls `cancel`, which must end them.
  absl::Status Serve(const std::function<void()>& cancel);
  // Over all tensors that were handed to the sink, in order.
  const std::vector<uint64_t>& digests() const { return digests_; }

  // For a connection. Memory of the whole tensor; waits until it may be filled.
  absl::StatusOr<absl::Span<std::byte>> MemoryOf(size_t tensor);
  // So many bytes of the tensor are there, verified.
  absl::Status PartDone(size_t tensor, uint64_t bytes);
  void Progress(uint64_t bytes);
  // Its last call.
  void Ended(const absl::Status& status);

 private:
  struct Tensor {
    uint64_t begin = 0;  // bytes of the tensors before it
    absl::Span<std::byte> memory;
    uint64_t missing_bytes = 0;
    bool is_whole = false;
  };

  bool HasWork() const;
  bool MayPlace() const;
  bool MayHandOver() const;
  absl::Status Step(std::unique_lock<std::mutex>& lock);

  TensorSink& sink_;
  const std::vector<TensorPart>& parts_;
  const uint64_t chunk_bytes_;
  const uint64_t most_ahead_bytes_;
  std::vector<uint64_t> digests_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Tensor> tensors_;  // guarded by mutex_, as are all members below
  size_t placed_ = 0;            // how many tensors have memory
  size_t wanted_ = 0;            // how many the connections want
  size_t handed_over_ = 0;
  size_t connections_ = 0;
  uint64_t progress_ = 0;  // that the sink was not told yet
  absl::Status error_;
};

}  // namespace refit
