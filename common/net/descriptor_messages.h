// The messages by which processes on one host pass descriptors of shared memory. proto/README.md describes them.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/safetensors/posix_file.h"

namespace refit {

// 16 bytes that nobody can guess. Empty if the system has no random numbers.
std::string NewDescriptorKey();
inline constexpr size_t kDescriptorKeyBytes = 16;

struct DescriptorRequest {
  enum class Kind : char { kTake = 'T', kOffer = 'O' };
  Kind kind = Kind::kTake;
  std::string key;
};
enum class DescriptorAnswer : char { kDone = '0', kUnknownKey = '1', kFailed = '2' };

std::string Encode(const DescriptorRequest& request);
// Nullopt if it is none.
std::optional<DescriptorRequest> DecodeDescriptorRequest(absl::string_view message);

// A message, with the descriptor that came with it.
struct DescriptorMessage {
  std::string bytes;  // empty: the peer has closed the connection
  FileDescriptor descriptor;
};

// Sends one message; `fd` -1: without a descriptor. UNAVAILABLE with the reason.
absl::Status SendDescriptorMessage(const FileDescriptor& socket, absl::string_view bytes, int fd = -1);

// UNAVAILABLE if none has come yet, ABORTED if the connection is broken. RESOURCE_EXHAUSTED, naming limit and setting,
// if the process may not have another descriptor. INVALID_ARGUMENT for a message that is too long or has several
// descriptors; none of these stays open.
absl::StatusOr<DescriptorMessage> ReceiveDescriptorMessage(const FileDescriptor& socket);

}  // namespace refit
