// A version that is being published, whichever way its bytes go.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "refit/box.h"
#include "refit/version_summary.h"

namespace refit {

// One version under way: to a service elsewhere (Publisher::Open), or in the service's own process
// (RefitServer::OpenVersion). Legal order: Append / Push until every tensor is complete, then Commit or Abort.
// Destroying it before Commit aborts the version. Not thread-safe. In a child of a fork FAILED_PRECONDITION; the
// parent's push goes on.
class VersionPush {
 public:
  virtual ~VersionPush() = default;

  // The version as opened: number of HF tensors, bytes, chunk size.
  virtual const VersionSummary& summary() const = 0;
  // The shards declared, one a native tensor.
  virtual const std::vector<TensorPart>& shards() const = 0;
  // Whether another rank sends this shard's bytes: they are then digested here and not sent.
  virtual bool digest_only(size_t index) const = 0;
  // Whether no output needs this shard, as when its tensor is excluded: Append may be left out, and sends nothing.
  virtual bool unneeded(size_t index) const = 0;

  // The next bytes of shard `index` (into the declared list), row-major, at most the rest of it; whole elements. Over
  // the wire they are copied before it returns unless `owner` is given: then the bytes are borrowed, must not change,
  // and `owner` is kept until gRPC has let go of them. In process they are converted before it returns, and `owner` is
  // not needed. An empty shard needs no call. Over the wire less than 32 KiB may wait 2 ms for more. The bytes must be
  // readable: memory of uncertain origin is MemoryProbe's to look at before. Errors: OUT_OF_RANGE for more bytes than
  // the tensor has; INVALID_ARGUMENT for a null address; otherwise what the service says of the push (see push.proto),
  // which then is over.
  virtual absl::Status Append(size_t index, absl::Span<const std::byte> bytes,
                              std::shared_ptr<const void> owner = nullptr) = 0;

  // The whole shard of the tensor of this name. NOT_FOUND if it was not declared; INVALID_ARGUMENT unless `bytes` is
  // exactly its size.
  virtual absl::Status Push(absl::string_view name, absl::Span<const std::byte> bytes,
                            std::shared_ptr<const void> owner = nullptr) = 0;

  // Commits, once every rank does; the version is visible to workers as a whole, or not at all. FAILED_PRECONDITION,
  // naming a tensor, if one is incomplete; ABORTED if another rank gave up or died.
  virtual absl::StatusOr<VersionSummary> Commit() = 0;

  // Gives the version up. Idempotent.
  virtual absl::Status Abort(absl::string_view reason) = 0;
};

}  // namespace refit
