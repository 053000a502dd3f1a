// A version that is being pushed, to a remote service or to one in this process.
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

// One version on its way to workers: to a service elsewhere (Publisher::Open, OpenShards), or in the service's own
// process (RefitServer::OpenVersion). It is a transaction: workers see all of it once it is committed, or nothing.
//
// Order of calls: Append or Push, in any order of tensors, until each is complete; then Commit or Abort, once. What is
// left out ends in Abort: destroying an uncommitted push aborts the version.
// Threads: one at a time. The pushes of a version's ranks, and those of several versions, are independent.
// Ownership: it must be destroyed before the server that opened it; a Publisher may go before its pushes.
// Units: bytes; indices count the tensors as they were declared.
// After a fork: FAILED_PRECONDITION in the child; the parent's push goes on.
//
// Errors, besides those that a call names. Over the wire the first error from the service ends the push, and every
// later call returns it again. ABORTED: another rank gave up or died, or somebody aborted the version.
// FAILED_PRECONDITION: a newer trainer_epoch has taken over, or the push is committed or aborted already. UNAVAILABLE:
// the connection was cut. DEADLINE_EXCEEDED: no answer within PublishOptions::timeout, or ranks or workers took longer
// than the service waits. CANCELLED: Publisher::Cancel. DATA_LOSS: bytes came damaged, or two ranks hold different
// bytes of the same box. RESOURCE_EXHAUSTED: the service has no memory for it.
class VersionPush {
 public:
  virtual ~VersionPush() = default;

  // The version as it was opened: number of HF tensors, bytes, chunk size.
  virtual const VersionSummary& summary() const = 0;
  // The declared shards, one for each native tensor, of the dtypes that the trainer has. Append takes these bytes, also
  // where PublishOptions::dtype has them cast before they are sent; errors count them, too.
  virtual const std::vector<TensorPart>& shards() const = 0;
  // Whether another rank sends this shard's bytes. They are then only digested here, not sent.
  virtual bool digest_only(size_t index) const = 0;
  // Whether no output needs this shard, for example because its tensor is excluded. Then Append is optional, and sends
  // nothing.
  virtual bool unneeded(size_t index) const = 0;
  // Index of the shard of the tensor of this name. NOT_FOUND if it was not declared.
  virtual absl::StatusOr<size_t> IndexOf(absl::string_view name) = 0;

  // The next bytes of shard `index`, row-major: they go on from where the last ones ended. Whole elements, at most what
  // the shard still lacks; an empty shard needs no call. The memory must be readable: see MemoryProbe for memory of
  // uncertain origin.
  //
  // Over the wire the bytes are copied before it returns, unless `owner` is given: then they are borrowed, must not
  // change, and `owner` is kept until gRPC has let go of them. Less than 32 KiB may wait 2 ms for more. Bytes that are
  // cast before they are sent, and all bytes in process, are read before it returns, and `owner` is not kept.
  //
  // Errors: OUT_OF_RANGE for more bytes than the shard lacks, or an index that was not declared; INVALID_ARGUMENT for
  // part of an element or a null address. Nothing is sent then, and the push goes on.
  virtual absl::Status Append(size_t index, absl::Span<const std::byte> bytes, std::shared_ptr<const void> owner) = 0;
  absl::Status Append(size_t index, absl::Span<const std::byte> bytes) { return Append(index, bytes, nullptr); }

  // The whole shard of the tensor of this name. NOT_FOUND if it was not declared; INVALID_ARGUMENT unless `bytes` is
  // exactly its size; otherwise as Append.
  virtual absl::Status Push(absl::string_view name, absl::Span<const std::byte> bytes,
                            std::shared_ptr<const void> owner) = 0;
  absl::Status Push(absl::string_view name, absl::Span<const std::byte> bytes) { return Push(name, bytes, nullptr); }

  // Commits, once every rank does, and returns the version as it then is. FAILED_PRECONDITION, naming a tensor, if one
  // is incomplete: the push goes on then.
  virtual absl::StatusOr<VersionSummary> Commit() = 0;

  // Gives the version up; `reason` is what workers and other ranks hear. Again, or after an error: OK. After Commit:
  // FAILED_PRECONDITION.
  virtual absl::Status Abort(absl::string_view reason) = 0;
};

}  // namespace refit
