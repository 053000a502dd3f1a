#include "common/wire/digest.h"

#include <algorithm>
#include <array>
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

uint64_t TensorDigest(absl::Span<const uint64_t> block_digests) {
  Hasher hasher;
  for (const uint64_t digest : block_digests) AddDigest(hasher, digest);
  return hasher.Digest();
}

uint64_t DigestTensor(absl::Span<const std::byte> tensor, uint64_t chunk_bytes) {
  TensorDigester digester(chunk_bytes);
  digester.Update(tensor);
  return digester.Finish();
}

struct TensorDigester::State {
  explicit State(uint64_t chunk_bytes) : block_bytes(std::max<uint64_t>(chunk_bytes, 1)) {}

  const uint64_t block_bytes;
  uint64_t filled = 0;  // of the present block
  Hasher block;
  Hasher tensor;

  void EndBlock() {
    AddDigest(tensor, block.Digest());
    block.Reset();
    filled = 0;
  }
};

TensorDigester::TensorDigester(uint64_t chunk_bytes) : state_(std::make_unique<State>(chunk_bytes)) {}
TensorDigester::~TensorDigester() = default;
TensorDigester::TensorDigester(TensorDigester&&) noexcept = default;
TensorDigester& TensorDigester::operator=(TensorDigester&&) noexcept = default;

void TensorDigester::Update(absl::Span<const std::byte> bytes) {
  State& state = *state_;
  while (!bytes.empty()) {
    const auto piece = bytes.subspan(0, state.block_bytes - state.filled);
    bytes.remove_prefix(piece.size());
    if (piece.size() == state.block_bytes) {
      AddDigest(state.tensor, DigestBytes(piece));  // a whole block at once is faster
      continue;
    }
    state.block.Update(piece.data(), piece.size());
    state.filled += piece.size();
    if (state.filled == state.block_bytes) state.EndBlock();
  }
}

void TensorDigester::UpdateBlock(uint64_t block_digest) { AddDigest(state_->tensor, block_digest); }

void TensorDigester::UpdateChunk(absl::Span<const std::byte> chunk, uint64_t chunk_digest, bool ends) {
  const State& state = *state_;
  const bool is_block = state.filled == 0 && !chunk.empty() &&
                        (chunk.size() == state.block_bytes || (ends && chunk.size() < state.block_bytes));
  if (is_block) {
    UpdateBlock(chunk_digest);
  } else {
    Update(chunk);
  }
}

uint64_t TensorDigester::Finish() {
  if (state_->filled > 0) state_->EndBlock();
  return state_->tensor.Digest();
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
