// The options, the sink and the result of one pull.
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

// The tensors of an earlier version that a worker still has. A service that has the same bytes then sends what has
// changed since. A plain value.
struct PullBase {
  uint64_t version = 0;
  uint64_t trainer_epoch = 0;
  // PullResult::selection_digest of the pull that brought it. If it is of other bytes, the service sends whole tensors.
  uint64_t digest = 0;
  struct Tensor {
    TensorPart part;
    // part.ByteSize() bytes, row-major, unchanged since that pull. Only read.
    absl::Span<const std::byte> bytes;
    // Keeps `bytes` alive. May be null, if the caller does.
    std::shared_ptr<const void> owner;
  };
  // All tensors of that pull, in its order.
  std::vector<Tensor> tensors;
};

// A plain value.
struct PullOptions {
  std::string model = "default";
  // Exactly this version, open or committed, of the newest run that has a version with this number. Unset: the newest
  // committed version.
  std::optional<uint64_t> version;
  // Only a version of this run of the trainer (PublishOptions::trainer_epoch). NOT_FOUND if it has none.
  std::optional<uint64_t> trainer_epoch;
  // RE2 pattern that is searched in the names. Empty: all tensors.
  std::string filter;
  // Only these names. Empty: all.
  std::vector<std::string> names;
  // Cut tensors into parts; only the bytes of those parts are sent. Rules apply in order, each to what the rules before
  // it left.
  std::vector<LayoutRule> rules;
  // Boxes of single tensors. Rules do not apply to these tensors. A box does not select its tensor: see `names`.
  std::vector<std::pair<std::string, Box>> boxes;
  // The worker's name, shown in the service's status. Empty: its address.
  std::string worker;
  // Identifies the life of the worker, among workers of the same name. 0: the subscriber's.
  uint64_t life = 0;
  // A pull that receives nothing for this long ends with DEADLINE_EXCEEDED. (A service that waits for its trainer sends
  // a message every few seconds.)
  std::chrono::milliseconds idle_timeout = std::chrono::seconds(60);
  // If the connection breaks or a chunk arrives damaged, the pull is resumed where it was; verified bytes are not sent
  // again. The pull fails when it has received nothing new for this long; zero: at once.
  std::chrono::milliseconds resume_within = std::chrono::seconds(30);
  // The version in use and its trainer_epoch (unset: that of the pulled version). PullResult then lists the skipped
  // versions.
  std::optional<uint64_t> installed;
  std::optional<uint64_t> installed_epoch;
  // Over how many connections the version is pulled: for links on which one connection is slower than the link. 0: as
  // many as pay, up to 8, found out by pulling some of it over one, two, and so on; later pulls of the subscriber know.
  // Each pulls parts of the large tensors, and resumes them by itself. One serves where this host's service shares its
  // memory, where a sink takes tensors one by one (TensorSink::TakesSeveral), and for small versions.
  uint32_t streams = 1;
  // What the worker still has, pulled with the same filter, names, rules and boxes. Null: whole tensors come. A base
  // that turns out to be another one than the service has is no error: what depends on it is pulled again, whole.
  std::shared_ptr<const PullBase> base;
};

// A range of a tensor as it came, verified. It refers to memory of the pull. A plain value.
struct PulledChunk {
  size_t index = 0;     // of the tensor
  uint64_t offset = 0;  // of the range, in the tensor's bytes
  uint64_t bytes = 0;   // of the range
  // Whether the payload says what has changed since PullOptions::base (proto/README.md, "Delta payloads"; empty:
  // nothing). Otherwise it is the range itself.
  bool is_delta = false;
  absl::Span<const std::byte> payload;
};

// Receives the tensors of a pull. Calls come in this order: Begin once; then for each tensor Adopt or Place, and Done.
// They come from the thread that pulls. An error from any of them ends the pull with that error. The caller of the pull
// owns the sink, which must outlive the pull.
class TensorSink {
 public:
  virtual ~TensorSink() = default;

  // Called once, before any tensor: the version and the tensors that will come. You may allocate memory here.
  virtual absl::Status Begin(const VersionSummary& version, const std::vector<TensorPart>& tensors) = 0;

  // Returns the memory for tensors[index], exactly its ByteSize(). It must stay valid until Done(index). Called once
  // for each tensor, in order.
  virtual absl::StatusOr<absl::Span<std::byte>> Place(size_t index) = 0;

  // Asked once, before Begin, if tensors are to come over several connections (PullOptions::streams). If it returns
  // true, they do, and Place may be called for several tensors before Done of the first. Place and Done are each called
  // in order all the same, and must not wait for each other.
  virtual bool TakesSeveral() { return false; }

  // Offers the service's own memory of tensors[index], on the same host, instead of Place(index). If it returns true,
  // the sink takes `mapped`, which has the bytes without a copy. The service cannot reuse that memory until `mapped` is
  // released.
  virtual bool Adopt(size_t index, std::shared_ptr<Buffer> mapped) {
    (void)index, (void)mapped;
    return false;
  }

  // tensors[index] is complete, and its digest is verified. The version is not yet known to be committed: install
  // nothing before the pull returns OK.
  virtual absl::Status Done(size_t index) = 0;

  // Asked once, after Begin, if the service sends what has changed since PullOptions::base. If it returns true, nothing
  // is written to what Place returns, which may be the base's own memory: Take gets the chunks, from which the sink can
  // make the version once the pull has returned OK. Digests are checked all the same, of what the base becomes by them.
  virtual bool TakesChunks() { return false; }
  // Between Place and Done of its tensor, in order. If the base turns out to be another one, the tensor begins again at
  // offset 0, and what came of it before is void.
  virtual absl::Status Take(const PulledChunk& chunk) {
    (void)chunk;
    return absl::OkStatus();
  }

  // Reports progress: `bytes` more were received. May be called often.
  virtual void Progress(uint64_t bytes) { (void)bytes; }
};

// In which form a pull's bytes came. A plain value.
struct PullTraffic {
  // Payload, over the connection or in shared memory.
  uint64_t wire_bytes = 0;
  // Of these, bytes that nobody moved: the sink adopted the service's own memory.
  uint64_t mapped_bytes = 0;
  // Chunks as they are; as changes of the base; and those that are as in the base.
  uint64_t raw_chunks = 0;
  uint64_t delta_chunks = 0;
  uint64_t unchanged_chunks = 0;
  // Elements that the deltas changed.
  uint64_t changed_elements = 0;
  // The base that deltas came of. Unset: none was used.
  std::optional<uint64_t> base_version;
  // Why PullOptions::base was not used, or only at first.
  std::string base_refused;
};

// A plain value.
struct PullResult {
  // The committed version. Its manifest digest was checked against the received tensors.
  VersionSummary version;
  uint64_t tensors = 0;
  uint64_t bytes = 0;
  PullTraffic traffic;
  // Digest over the tensors as pulled; that of the manifest if all were pulled, whole. See PullBase::digest.
  uint64_t selection_digest = 0;
  // Duration of the whole pull, and how long it waited for the service (wire, conversion, trainer).
  std::chrono::nanoseconds elapsed{0};
  std::chrono::nanoseconds waited{0};
  // How often the pull was resumed.
  uint64_t resumed = 0;
  // Over how many connections it came at most.
  uint64_t streams = 1;
  // The service that it came from in the end, and how often the pull went on to another one.
  std::string address;
  uint64_t moved = 0;
  // Not empty: the service is on this host, but its memory could not be mapped, so the rest came over the connection.
  // Contains the reason, with the limit and its setting if one was reached.
  std::string not_mapped;
  // Versions committed between PullOptions::installed and this one, ascending, as far as the service remembers them.
  std::vector<uint64_t> skipped;
};

// A pulled tensor that owns its memory. Tensors of a version share slabs of memory. A slab is freed with the last of
// its tensors.
struct PulledTensor {
  TensorPart part;               // the whole tensor, unless the pull selected less
  std::shared_ptr<Buffer> data;  // part.ByteSize() bytes, row-major
};

struct PulledVersion {
  PullResult result;
  std::vector<PulledTensor> tensors;  // in manifest order
};

// For the pull of a later version. It shares the tensors' memory, which nobody may change as long as it is used.
std::shared_ptr<const PullBase> BaseOf(const PulledVersion& version);

}  // namespace refit
