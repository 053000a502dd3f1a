// One pull: what a worker asks for, where the tensors go, and what came.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "refit/box.h"
#include "refit/buffer.h"
#include "refit/layout_rule.h"
#include "refit/version_summary.h"

namespace refit {

// A plain value.
struct PullOptions {
  std::string model = "default";
  // Exactly this version, open or committed, of the newest run that has one of this number. Unset: the newest committed
  // one.
  std::optional<uint64_t> version;
  // Only of this run of the trainer (PublishOptions::trainer_epoch); NOT_FOUND rather than one of another.
  std::optional<uint64_t> trainer_epoch;
  // RE2 pattern to be found in a name. Empty: all tensors.
  std::string filter;
  // Only these names. Empty: all.
  std::vector<std::string> names;
  // Cut tensors into parts; only those bytes come. Rules apply in order, each to what the ones before it left.
  std::vector<LayoutRule> rules;
  // Boxes of single tensors; rules do not apply to them. Selects no tensor: see `names`.
  std::vector<std::pair<std::string, Box>> boxes;
  // Shown in the service's status. Empty: the address.
  std::string worker;
  // Which life of the worker it is, to tell those of one name apart. 0: the subscriber's.
  uint64_t life = 0;
  // A pull that hears nothing for so long ends with DEADLINE_EXCEEDED (a service that waits for its trainer says so
  // every few seconds).
  std::chrono::milliseconds idle_timeout = std::chrono::seconds(60);
  // A pull that is cut, or one of whose chunks came damaged, is resumed where it was: nothing that was verified comes
  // again. It is given up once nothing new has come for so long; zero: at once.
  std::chrono::milliseconds resume_within = std::chrono::seconds(30);
  // The version that is in use, and its trainer_epoch (unset: that of the version pulled): PullResult then tells which
  // ones are skipped.
  std::optional<uint64_t> installed;
  std::optional<uint64_t> installed_epoch;
};

// Where a pull puts tensors, and what it tells on the way. Legal order: Begin once; then for each tensor in turn Adopt
// or Place, and Done. Called from the thread that pulls. An error from any of them ends the pull with that error. The
// caller of the pull owns the sink, which must outlive it.
class TensorSink {
 public:
  virtual ~TensorSink() = default;

  // The version and what will come of its tensors, once, before any of it. Allocate here if you like.
  virtual absl::Status Begin(const VersionSummary& version, const std::vector<TensorPart>& tensors) = 0;

  // The memory for tensors[index], exactly its ByteSize(); must stay valid until Done(index). Called once a tensor, in
  // order.
  virtual absl::StatusOr<absl::Span<std::byte>> Place(size_t index) = 0;

  // Offers tensors[index] where the service on this host has it, in place of Place(index): true takes it, and its bytes
  // are there without a copy. It holds on to the service's memory until it is let go of.
  virtual bool Adopt(size_t index, std::shared_ptr<Buffer> mapped) {
    (void)index, (void)mapped;
    return false;
  }

  // tensors[index] is complete and its digest verified. It is not part of a committed version yet: install nothing
  // before the pull returns OK.
  virtual absl::Status Done(size_t index) = 0;

  // `bytes` more were received. For progress; may be called often.
  virtual void Progress(uint64_t bytes) { (void)bytes; }
};

// A plain value.
struct PullResult {
  // The committed version; its manifest digest was checked against the tensors received.
  VersionSummary version;
  uint64_t tensors = 0;
  uint64_t bytes = 0;
  // Wall time of the whole pull, and the part of it that waited for the service (wire, conversion, trainer).
  std::chrono::nanoseconds elapsed{0};
  std::chrono::nanoseconds waited{0};
  // How often it was resumed.
  uint64_t resumed = 0;
  // Not empty: the service is on this host, but its memory could not be mapped, and all from there on came over the
  // connection. Says why, naming the limit and its setting if one was hit.
  std::string not_mapped;
  // Versions committed between PullOptions::installed and this one, as far as the service remembers them; ascending.
  std::vector<uint64_t> skipped;
};

// A pulled tensor that owns its memory. Tensors of a version share slabs of memory, each of which is let go of with the
// last of its tensors.
struct PulledTensor {
  TensorPart part;               // the whole tensor unless the pull asked for less
  std::shared_ptr<Buffer> data;  // part.ByteSize() bytes, row-major
};

struct PulledVersion {
  PullResult result;
  std::vector<PulledTensor> tensors;  // in manifest order
};

}  // namespace refit
