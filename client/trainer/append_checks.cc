#include "client/trainer/append_checks.h"

#include "absl/strings/str_cat.h"

namespace refit {

absl::Status AppendChecks::Append(size_t index, absl::Span<const std::byte> bytes,
                                  absl::FunctionRef<uint64_t(size_t index)> missing) const {
  if (index >= shards_.size()) {
    return absl::OutOfRangeError(
        absl::StrCat(context_, ": there is no tensor ", index, "; ", shards_.size(), " were declared"));
  }
  const TensorPart& shard = shards_[index];
  if (const uint64_t lacks = missing(index); bytes.size() > lacks) {
    return absl::OutOfRangeError(
        absl::StrCat(context_, ", tensor ", shard.ToString(), ": ", bytes.size(), " bytes more, but it lacks ", lacks));
  }
  const size_t element = ElementSize(shard.tensor.dtype);
  if (bytes.size() % element != 0) {
    return Invalid(shard, absl::StrCat(bytes.size(), " bytes are not whole elements of ", element));
  }
  if (bytes.data() != nullptr || bytes.empty()) return absl::OkStatus();
  return Invalid(shard, absl::StrCat("got ", bytes.size(), " bytes at a null address"));
}

absl::Status AppendChecks::Push(size_t index, absl::Span<const std::byte> bytes) const {
  const TensorPart& shard = shards_[index];
  if (bytes.size() == shard.ByteSize()) return absl::OkStatus();
  return Invalid(shard, absl::StrCat("expected ", shard.ByteSize(), " bytes, got ", bytes.size()));
}

absl::Status AppendChecks::Commit(absl::FunctionRef<uint64_t(size_t index)> missing,
                                  absl::FunctionRef<bool(size_t index)> unneeded) const {
  for (size_t i = 0; i < shards_.size(); ++i) {
    const uint64_t lacks = missing(i);
    if (lacks == 0 || unneeded(i)) continue;
    const uint64_t bytes = shards_[i].ByteSize();
    return absl::FailedPreconditionError(absl::StrCat(context_, ", tensor ", shards_[i].ToString(),
                                                      ": cannot commit, only ", bytes - lacks, " of ", bytes,
                                                      " bytes were pushed"));
  }
  return absl::OkStatus();
}

absl::Status AppendChecks::Invalid(const TensorPart& shard, absl::string_view what) const {
  return absl::InvalidArgumentError(absl::StrCat(context_, ", tensor ", shard.ToString(), ": ", what));
}

}  // namespace refit
