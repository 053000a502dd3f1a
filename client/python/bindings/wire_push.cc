#include "client/python/bindings/wire_push.h"

#include <cstdint>
#include <utility>
#include <vector>

#include "client/python/bindings/convert.h"
#include "client/python/bindings/gil.h"
#include "client/python/bindings/publisher_run.h"

namespace refit::python {
namespace {

// How much memory is checked and then sent at a time. A multiple of the usual chunk sizes, because each piece is split
// into chunks of its own.
constexpr uint64_t kProbedBytes = 8 << 20;
// More than gRPC and the kernel hold at a time.
constexpr uint64_t kCopiedBytes = 8 << 20;

}  // namespace

// Waits for gRPC, so without the GIL.
WirePush::~WirePush() {
  const WithoutGil no_gil;
  push_.reset();
}

pybind11::dict WirePush::Summary() const { return ToDict(push_->summary()); }

void WirePush::Append(const LentShards& shards, bool until_read) {
  std::vector<std::shared_ptr<const void>> owners;
  owners.reserve(shards.size());
  uint64_t rest = 0;
  for (const auto& [index, lent] : shards) {
    owners.push_back(loans_.Lend(lent.owner));
    rest += lent.size;
  }
  RunStatus(*publisher_, [&] {
    MemoryProbe probe;
    for (size_t i = 0; i < shards.size(); ++i) {
      const auto& [index, lent] = shards[i];
      const std::shared_ptr<const void> owner = std::move(owners[i]);
      for (uint64_t begin = 0; begin < lent.size; begin += kProbedBytes) {
        const auto piece = lent.bytes().subspan(begin, kProbedBytes);
        const bool is_copied = until_read && rest <= kCopiedBytes;
        absl::Status status = AppendPiece(index, piece, is_copied ? nullptr : owner, probe);
        if (!status.ok()) return status;
        rest -= piece.size();
      }
    }
    return until_read ? loans_.AwaitNone(timeout_) : absl::OkStatus();
  });
}

absl::Status WirePush::AppendPiece(size_t index, absl::Span<const std::byte> bytes, std::shared_ptr<const void> owner,
                                   MemoryProbe& probe) {
  if (absl::Status status = CheckReadable(bytes, push_->shards()[index], probe); !status.ok()) return status;
  return push_->Append(index, bytes, std::move(owner));
}

pybind11::dict WirePush::Commit() {
  return ToDict(Run<VersionSummary>(*publisher_, [&] { return push_->Commit(); }));
}

void WirePush::Abort(const std::string& reason) {
  RunStatus(*publisher_, [&] { return push_->Abort(reason); });
}

}  // namespace refit::python
