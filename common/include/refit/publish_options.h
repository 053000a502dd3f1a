// Options of a version that a trainer publishes.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "absl/types/span.h"
#include "refit/dtype.h"

namespace refit {

struct PublishOptions {
  std::string model = "default";
  // Must be larger than every version committed before under this model with the same trainer_epoch.
  uint64_t version = 0;
  // How native tensors become Hugging Face's: a model family's name, "identity", or "auto" for the one that names and
  // shapes point to.
  std::string adapter = "gemma4_moe";
  // Choices of the trainer's configuration, such as {"activation", "relu2"}. Each adapter takes "experts" and
  // "expert_width", which shapes must agree with.
  std::map<std::string, std::string> adapter_options;
  // Type to which floating-point outputs are cast. Unset: no cast. Over the wire, what becomes smaller is cast before
  // it is sent: F32 masters as BF16 take half the bytes. The service casts the rest, to the same bits as ever.
  // VersionPush takes the trainer's own bytes in either case.
  std::optional<DType> dtype;
  // Tensors that match (Python re.match) are not published. The family says whether native or Hugging Face names are
  // matched, as its reference does. Empty: none.
  std::string exclude_key_regex;
  // Python re.match against native names. Outputs of tensors that match are not cast to `dtype`: an engine may need
  // some in F32, such as a router's bias. Empty: none. INVALID_ARGUMENT if it matches nothing; FAILED_PRECONDITION if
  // the service is too old for it.
  std::string keep_dtype_regex;
  // Whether tensors that the family never casts keep their dtype, such as a router's correction bias.
  bool keep_family_dtypes = true;
  // Shown in the service's logs and status.
  std::string publisher;
  // For a sharded trainer: this rank, below `world`, and the number of ranks that push the version together.
  uint32_t rank = 0;
  uint32_t world = 1;
  // Workers stage the version, and install it only after ReleaseInstalls, so that all of them switch together. In a
  // sharded push, the value of the first rank to join counts.
  bool hold_installs = false;
  // Identifies the run of the trainer, on all its ranks: larger than that of every earlier run, such as a restart
  // count. A run with a larger epoch than the service has seen for the model aborts the open versions of older runs,
  // and their pushes end with FAILED_PRECONDITION. From then on, pushes of older runs are refused in the same way.
  // Version numbers may start again with it, and workers follow. 0: runs are not distinguished.
  uint64_t trainer_epoch = 0;
  // Allows a version without tensors, or with only empty ones. Otherwise it is refused.
  bool allow_empty = false;
  // Called every few seconds from the thread that waits. Open and Commit pass the ranks that are still missing (the
  // first 16 of them). Append and Push pass none while a streamed version waits for workers.
  std::function<void(absl::Span<const uint32_t> missing)> on_waiting;
  // Timeout for each answer of the service, and for each write.
  std::chrono::milliseconds timeout = std::chrono::seconds(60);
};

}  // namespace refit
