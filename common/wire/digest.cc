#include "common/wire/digest.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/wire/hasher.h"

namespace refit {
namespace {

// Numbers are digested as they are in memory.
static_assert(std::endian::native == std::endian::little);

void AppendJoined(absl::Span<const int64_t> numbers, std::string& text) {
  const char* separator = "";
  for (const int64_t number : numbers) {
    absl::StrAppend(&text, separator, number);
    separator = ",";
  }
}

}  // namespace

uint64_t DigestBytes(absl::Span<const std::byte> bytes) { return Hasher::Of(bytes.data(), bytes.size()); }

uint64_t CopyAndDigest(absl::Span<const std::byte> bytes, std::byte* dst) {
  return WriteAndDigest({dst, bytes.size()}, [&](uint64_t begin, absl::Span<std::byte> piece) {
    std::memcpy(piece.data(), bytes.data() + begin, piece.size());
  });
}

uint64_t WriteAndDigest(absl::Span<std::byte> target,
                        absl::FunctionRef<void(uint64_t begin, absl::Span<std::byte> piece)> write) {
  thread_local Hasher hasher;  // allocates only once
  hasher.Reset();
  for (uint64_t begin = 0; begin < target.size(); begin += Hasher::kHotBytes) {
    const absl::Span<std::byte> piece = target.subspan(begin, Hasher::kHotBytes);
    write(begin, piece);
    hasher.Update(piece.data(), piece.size());
  }
  return hasher.Digest();
}

uint64_t ChunkCount(uint64_t bytes, uint64_t chunk_bytes) {
  if (bytes == 0) return 1;
  return (bytes - 1) / std::max<uint64_t>(chunk_bytes, 1) + 1;
}

uint64_t TensorDigest(absl::Span<const uint64_t> block_digests) {
  return Hasher::Of(block_digests.data(), block_digests.size() * sizeof(uint64_t));
}

uint64_t DigestTensor(absl::Span<const std::byte> tensor, uint64_t chunk_bytes) {
  TensorDigester digester(chunk_bytes);
  digester.Update(tensor);
  return digester.Finish();
}

TensorDigester::TensorDigester(uint64_t chunk_bytes) : block_bytes_(std::max<uint64_t>(chunk_bytes, 1)) {}
TensorDigester::~TensorDigester() = default;
TensorDigester::TensorDigester(TensorDigester&&) noexcept = default;
TensorDigester& TensorDigester::operator=(TensorDigester&&) noexcept = default;

void TensorDigester::Update(absl::Span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const auto piece = bytes.subspan(0, block_bytes_ - filled_);
    bytes.remove_prefix(piece.size());
    if (piece.size() == block_bytes_) {
      UpdateBlock(DigestBytes(piece));  // hashing a whole block at once is faster
      continue;
    }
    if (block_ == nullptr) block_ = std::make_unique<Hasher>();
    block_->Update(piece.data(), piece.size());
    filled_ += piece.size();
    if (filled_ == block_bytes_) EndBlock();
  }
}

void TensorDigester::EndBlock() {
  UpdateBlock(block_->Digest());
  block_->Reset();
  filled_ = 0;
}

void TensorDigester::UpdateBlock(uint64_t block_digest) { block_digests_.push_back(block_digest); }

void TensorDigester::UpdateChunk(absl::Span<const std::byte> chunk, uint64_t chunk_digest, bool ends) {
  const bool is_block =
      filled_ == 0 && !chunk.empty() && (chunk.size() == block_bytes_ || (ends && chunk.size() < block_bytes_));
  if (is_block) {
    UpdateBlock(chunk_digest);
  } else {
    Update(chunk);
  }
}

uint64_t TensorDigester::Finish() {
  if (filled_ > 0) EndBlock();
  return TensorDigest(block_digests_);
}

struct ManifestDigester::State {
  Hasher hasher;
  std::string entry;  // a member, to reuse its memory

  void Begin(const TensorSpec& spec) {
    entry.clear();
    absl::StrAppend(&entry, spec.name, kEnd, Name(spec.dtype), kEnd);
    AppendJoined(spec.shape, entry);
  }

  void End(uint64_t digest) {
    absl::StrAppend(&entry, kEnd, absl::string_view(reinterpret_cast<const char*>(&digest), sizeof(digest)));
    hasher.Update(entry.data(), entry.size());
  }

 private:
  static constexpr absl::string_view kEnd = absl::string_view("\0", 1);
};

ManifestDigester::ManifestDigester() : state_(std::make_unique<State>()) {}
ManifestDigester::~ManifestDigester() = default;
ManifestDigester::ManifestDigester(ManifestDigester&&) noexcept = default;
ManifestDigester& ManifestDigester::operator=(ManifestDigester&&) noexcept = default;

void ManifestDigester::Add(const TensorSpec& spec, uint64_t tensor_digest) {
  state_->Begin(spec);
  state_->End(tensor_digest);
}

void ManifestDigester::Add(const TensorPart& part, uint64_t part_digest) {
  state_->Begin(part.tensor);
  if (!part.is_whole()) {
    absl::StrAppend(&state_->entry, "@");
    AppendJoined(part.box.offsets, state_->entry);
    absl::StrAppend(&state_->entry, "+");
    AppendJoined(part.box.sizes, state_->entry);
  }
  state_->End(part_digest);
}

uint64_t ManifestDigester::Finish() const { return state_->hasher.Digest(); }

}  // namespace refit
