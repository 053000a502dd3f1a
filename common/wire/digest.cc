#include "common/wire/digest.h"

#include <algorithm>
#include <array>
#include <bit>
#include <string>

#include "absl/strings/string_view.h"
#include "common/wire/hasher.h"

namespace refit {
namespace {

std::array<std::byte, 8> LittleEndian(uint64_t value) {
  std::array<std::byte, 8> bytes;
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(value >> (8 * i));
  return bytes;
}

void AddDigest(Hasher& hasher, uint64_t digest) {
  const auto bytes = LittleEndian(digest);
  hasher.Update(bytes.data(), bytes.size());
}

std::string Join(absl::Span<const int64_t> numbers) {
  std::string text;
  for (const int64_t number : numbers) {
    if (!text.empty()) text.push_back(',');
    text += std::to_string(number);
  }
  return text;
}

}  // namespace

uint64_t DigestBytes(absl::Span<const std::byte> bytes) { return Hasher::Of(bytes.data(), bytes.size()); }

uint64_t CopyAndDigest(absl::Span<const std::byte> bytes, std::byte* dst) {
  thread_local Hasher hasher;  // allocates once
  hasher.Reset();
  hasher.CopyAndUpdate(bytes.data(), bytes.size(), dst);
  return hasher.Digest();
}

uint64_t ChunkCount(uint64_t bytes, uint64_t chunk_bytes) {
  if (bytes == 0) return 1;
  return (bytes - 1) / std::max<uint64_t>(chunk_bytes, 1) + 1;
}

// As they lie in memory: this host is little-endian.
uint64_t TensorDigest(absl::Span<const uint64_t> block_digests) {
  static_assert(std::endian::native == std::endian::little);
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
      UpdateBlock(DigestBytes(piece));  // a whole block at once is faster
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

  void Add(const TensorSpec& spec, absl::string_view place, uint64_t digest) {
    std::string entry;
    for (const absl::string_view text : {absl::string_view(spec.name), Name(spec.dtype), place}) {
      entry.append(text.data(), text.size());
      entry.push_back('\0');
    }
    hasher.Update(entry.data(), entry.size());
    AddDigest(hasher, digest);
  }
};

ManifestDigester::ManifestDigester() : state_(std::make_unique<State>()) {}
ManifestDigester::~ManifestDigester() = default;
ManifestDigester::ManifestDigester(ManifestDigester&&) noexcept = default;
ManifestDigester& ManifestDigester::operator=(ManifestDigester&&) noexcept = default;

void ManifestDigester::Add(const TensorSpec& spec, uint64_t tensor_digest) {
  state_->Add(spec, Join(spec.shape), tensor_digest);
}

void ManifestDigester::Add(const TensorPart& part, uint64_t part_digest) {
  std::string place = Join(part.tensor.shape);
  if (!part.is_whole()) place += "@" + Join(part.box.offsets) + "+" + Join(part.box.sizes);
  state_->Add(part.tensor, place, part_digest);
}

uint64_t ManifestDigester::Finish() const { return state_->hasher.Digest(); }

}  // namespace refit
