// Decides which shards are cast before they are sent, and casts them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "refit/box.h"
#include "refit/dtype.h"
#include "refit/publish_options.h"

namespace refit {

// A shard's elements as the trainer has them, and as they are sent. All bytes are whole elements.
class ShardCast {
 public:
  // Requires CanConvert(native, sent).
  ShardCast(DType native, DType sent) : native_(native), sent_(sent) {}

  DType sent() const { return sent_; }
  bool is_needed() const { return native_ != sent_; }

  uint64_t SentBytes(uint64_t native_bytes) const { return native_bytes / ElementSize(native_) * ElementSize(sent_); }
  uint64_t NativeBytes(uint64_t sent_bytes) const { return sent_bytes / ElementSize(sent_) * ElementSize(native_); }

  // Writes native elements as they are sent; `sent` has room for them. Returns the digest of what it has written.
  uint64_t WriteAndDigest(absl::Span<const std::byte> native, std::byte* sent) const;

  // Calls `take` with native elements as they are sent, piece by piece, in order.
  void ForEachSent(absl::Span<const std::byte> native,
                   absl::FunctionRef<void(absl::Span<const std::byte> sent)> take) const;

 private:
  void Convert(const std::byte* native, absl::Span<std::byte> sent) const;

  DType native_;
  DType sent_;
};

// How each shard is sent. The service plans by the same rules (common/adapters/plan.h) and finds nothing left to cast
// in what was cast here, so the version is the same, bit for bit. Only shards that become smaller are cast, and none
// for which this process knows no plan: the service then casts them, or says what is wrong.
std::vector<ShardCast> PlanCasts(const PublishOptions& options, absl::Span<const TensorPart> shards);

}  // namespace refit
