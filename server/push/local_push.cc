#include "server/push/local_push.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/net/version_summary.h"
#include "common/tensor/shard_names.h"
#include "refit/fork_guard.h"
#include "server/push/version_builder.h"

namespace refit {
namespace {

class LocalPush final : public VersionPush {
 public:
  explicit LocalPush(std::unique_ptr<VersionBuilder> builder)
      : builder_(std::move(builder)), summary_(FromProto(builder_->version()->Summary())) {}

  const VersionSummary& summary() const override { return summary_; }
  const std::vector<TensorPart>& shards() const override { return builder_->shards(); }
  bool digest_only(size_t /*index*/) const override { return false; }  // there are no other ranks
  bool unneeded(size_t index) const override { return index < shards().size() && builder_->is_unneeded(index); }
  absl::StatusOr<size_t> IndexOf(absl::string_view name) override { return names_.IndexOf(name); }

  absl::Status Append(size_t index, absl::Span<const std::byte> bytes, std::shared_ptr<const void> /*owner*/) override {
    if (!over_.ok()) return over_;
    if (index < shards().size()) return builder_->Append(index, builder_->received(index), bytes);
    return absl::OutOfRangeError(
        absl::StrCat(Label(), ": there is no tensor ", index, "; ", shards().size(), " were declared"));
  }

  absl::Status Push(absl::string_view name, absl::Span<const std::byte> bytes,
                    std::shared_ptr<const void> /*owner*/) override {
    const absl::StatusOr<size_t> index = IndexOf(name);
    if (!index.ok()) return index.status();
    const TensorPart& shard = shards()[*index];
    if (bytes.size() == shard.ByteSize()) return Append(*index, bytes, nullptr);
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", shard.ToString(), ": expected ", shard.ByteSize(), " bytes, got ", bytes.size()));
  }

  absl::StatusOr<VersionSummary> Commit() override {
    if (!over_.ok()) return over_;
    const absl::StatusOr<v1::VersionSummary> committed = builder_->Commit();
    if (!committed.ok()) return committed.status();
    committed_ = true;
    End("is committed");
    return FromProto(*committed);
  }

  absl::Status Abort(absl::string_view reason) override {
    if (absl::Status status = guard_.Check(Label()); !status.ok()) return status;
    if (committed_) return over_;
    if (over_.ok() && builder_->Abort(reason)) End(absl::StrCat("was aborted: ", reason));
    return absl::OkStatus();
  }

 private:
  std::string Label() const { return absl::StrCat("version ", builder_->version()->Label()); }
  void End(absl::string_view how) { over_ = absl::FailedPreconditionError(absl::StrCat(Label(), " ", how)); }

  const ForkGuard guard_;
  const std::unique_ptr<VersionBuilder> builder_;
  const VersionSummary summary_;  // as it was opened
  ShardNames names_{shards()};
  absl::Status over_;  // if not OK, nothing more can be pushed
  bool committed_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<VersionPush>> OpenLocalPush(VersionStore& store, WorkQueue& helpers,
                                                           const PublishOptions& options,
                                                           std::vector<TensorSpec> native, const Limits& limits) {
  if (options.world != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("a version of ", options.world, " ranks is pushed over the wire; in process, world is 1"));
  }
  absl::StatusOr<std::unique_ptr<VersionBuilder>> builder =
      VersionBuilder::Open(store, options, std::move(native), limits);
  if (!builder.ok()) return builder.status();
  (*builder)->ConvertWith(helpers);
  return std::make_unique<LocalPush>(*std::move(builder));
}

}  // namespace refit
