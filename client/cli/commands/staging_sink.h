// The sink of `refit pull`. It stages received tensors, and writes and verifies them on a second thread.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "client/cli/commands/verify.h"
#include "client/cli/run/stopwatch.h"
#include "client/cli/terminal/progress.h"
#include "common/safetensors/safetensors.h"
#include "common/tensor/buffer_pool.h"
#include "refit/pull.h"

namespace refit::cli {

// A second thread writes and verifies received tensors in order, and then reuses their memory. Receiving waits while
// kStagedBytes that were received are not yet through.
class StagingSink : public TensorSink {
 public:
  // Both may be omitted: `out_path` empty, `verifier` null. `whole`: every tensor of the version is expected.
  StagingSink(TransferProgress& progress, std::string out_path, std::unique_ptr<Verifier> verifier, bool whole);
  ~StagingSink() override;

  absl::Status Begin(const VersionSummary& version, const std::vector<TensorPart>& tensors) override;
  absl::StatusOr<absl::Span<std::byte>> Place(size_t index) override;
  absl::Status Done(size_t index) override;
  bool TakesSeveral() override { return true; }
  void Progress(uint64_t bytes) override { progress_.Add(bytes); }

  // Waits until every tensor is written and verified. Call it after a successful pull. Its error takes precedence over
  // the pull's.
  absl::Status Finish();
  // Gives the file, if there is one, its name. Reports on stderr what its file system could not do. Call it after
  // Finish.
  absl::Status Commit();

  // Time that the steps took, and time that receiving waited for them. Call after Finish.
  double write_seconds() const { return write_watch_.seconds(); }
  double verify_seconds() const { return verify_watch_.seconds(); }
  double stalled_seconds() const { return stall_watch_.seconds(); }
  uint64_t manifest_bytes() const { return manifest_bytes_; }

 private:
  struct Staged {
    size_t index = 0;
    std::shared_ptr<Buffer> memory;
    absl::Span<std::byte> bytes;
  };
  void Work();
  absl::Status Process(const Staged& staged);

  TransferProgress& progress_;
  const std::string out_path_;
  const std::unique_ptr<Verifier> verifier_;
  const bool whole_;
  std::unique_ptr<SafetensorsWriter> writer_;
  std::vector<TensorPart> tensors_;
  uint64_t manifest_bytes_ = 0;
  BufferPool pool_;
  std::map<size_t, Staged> receiving_;  // by tensor
  Stopwatch write_watch_;
  Stopwatch verify_watch_;
  Stopwatch stall_watch_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Staged> queue_;   // guarded by mutex_, as are all members below
  uint64_t staged_bytes_ = 0;  // received, and not yet through
  bool closed_ = false;
  absl::Status status_;
  std::thread thread_;
};

}  // namespace refit::cli
