#include "common/wire/chunk_codec.h"

#include <algorithm>
#include <array>
#include <limits>

#include "absl/strings/str_cat.h"

namespace refit {
namespace {

// Wire types and tags of protobuf: (field number << 3) | wire type.
constexpr int kVarint = 0;
constexpr int kFixed64 = 1;
constexpr int kLengthDelimited = 2;
constexpr uint8_t Tag(int field, int wire_type) { return static_cast<uint8_t>(field << 3 | wire_type); }

constexpr uint8_t kChunk = Tag(1, kLengthDelimited);  // in PushRequest and in PullResponse
constexpr uint8_t kBatch = Tag(7, kLengthDelimited);  // in both
constexpr uint8_t kTensor = Tag(1, kVarint);
constexpr uint8_t kOffset = Tag(2, kVarint);
constexpr uint8_t kEncoding = Tag(3, kVarint);
constexpr uint8_t kDecodedBytes = Tag(4, kVarint);
constexpr uint8_t kDigest = Tag(5, kFixed64);
constexpr uint8_t kTensorDigest = Tag(6, kFixed64);
constexpr uint8_t kPayload = Tag(15, kLengthDelimited);

// Writes short messages on the stack.
class Writer {
 public:
  absl::string_view text() const { return {bytes_.data(), size_}; }

  void Byte(uint8_t byte) { bytes_[size_++] = static_cast<char>(byte); }
  void Varint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) Byte(static_cast<uint8_t>(value | 0x80));
    Byte(static_cast<uint8_t>(value));
  }
  // proto3 omits fields that have their default value.
  void VarintField(uint8_t tag, uint64_t value) {
    if (value == 0) return;
    Byte(tag);
    Varint(value);
  }
  void Fixed64Field(uint8_t tag, uint64_t value) {
    Byte(tag);
    for (int shift = 0; shift < 64; shift += 8) Byte(static_cast<uint8_t>(value >> shift));
  }

 private:
  std::array<char, kMaxChunkPrefixBytes> bytes_;
  size_t size_ = 0;
};

// Reads fields in the form that the encoder writes. At the first mismatch it stops, and reads nothing more.
class Reader {
 public:
  enum class State { kOk, kOtherForm, kTruncated };

  Reader(absl::Span<const std::byte> head, uint64_t message_bytes)
      : head_(head.subspan(0, std::min<uint64_t>(head.size(), message_bytes))), message_bytes_(message_bytes) {}

  State state() const { return state_; }
  uint64_t position() const { return position_; }
  uint64_t rest() const { return message_bytes_ - position_; }

  // Consumes `tag` if it is next.
  bool TryTag(uint8_t tag) {
    if (state_ != State::kOk || position_ >= head_.size() || std::to_integer<uint8_t>(head_[position_]) != tag)
      return false;
    ++position_;
    return true;
  }

  // A varint in the shortest form.
  uint64_t Varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const uint64_t byte = Byte();
      if (state_ != State::kOk) return 0;
      if (shift == 63 && byte > 1) break;
      value |= (byte & 0x7f) << shift;
      if (byte >= 0x80) continue;
      if (byte == 0 && shift > 0) break;
      return value;
    }
    Fail(State::kOtherForm);
    return 0;
  }

  // A varint field, which is present only if it is not 0.
  uint64_t VarintField(uint8_t tag, uint64_t limit = std::numeric_limits<uint64_t>::max()) {
    if (!TryTag(tag)) return 0;
    const uint64_t value = Varint();
    if (value == 0 || value > limit) Fail(State::kOtherForm);
    return value;
  }

  uint64_t Fixed64() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 8) value |= uint64_t{Byte()} << shift;
    return value;
  }

  void Fail(State state) {
    if (state_ == State::kOk) state_ = state;
  }

 private:
  uint8_t Byte() {
    if (position_ < head_.size()) return std::to_integer<uint8_t>(head_[position_++]);
    Fail(head_.size() == message_bytes_ ? State::kTruncated : State::kOtherForm);
    return 0;
  }

  absl::Span<const std::byte> head_;
  uint64_t message_bytes_;
  uint64_t position_ = 0;
  State state_ = State::kOk;
};

// Removes the field at the beginning of `from` and returns its contents. If there is no field of this tag, or it ends
// beyond `from`, returns an empty span and leaves `from` unchanged.
absl::Span<const std::byte> TakeField(uint8_t tag, absl::Span<const std::byte>& from) {
  Reader reader(from, from.size());
  if (!reader.TryTag(tag)) return {};
  const uint64_t size = reader.Varint();
  if (reader.state() != Reader::State::kOk || size > reader.rest()) return {};
  const absl::Span<const std::byte> field = from.subspan(reader.position(), size);
  from.remove_prefix(reader.position() + size);
  return field;
}

// A chunk without its payload.
class ChunkPrefix {
 public:
  ChunkPrefix(const ChunkHeader& header, uint64_t payload_bytes) {
    fields_.VarintField(kTensor, header.tensor);
    fields_.VarintField(kOffset, header.offset);
    fields_.VarintField(kEncoding, static_cast<uint32_t>(header.encoding));
    fields_.VarintField(kDecodedBytes, header.decoded_bytes);
    if (header.digest != 0) fields_.Fixed64Field(kDigest, header.digest);
    if (header.tensor_digest.has_value()) fields_.Fixed64Field(kTensorDigest, *header.tensor_digest);
    // Written even if empty, so that the payload is always present and last.
    fields_.Byte(kPayload);
    fields_.Varint(payload_bytes);
    begin_.Byte(kChunk);
    begin_.Varint(fields_.text().size() + payload_bytes);
  }

  size_t size() const { return begin_.text().size() + fields_.text().size(); }
  void AppendTo(std::string& out) const { absl::StrAppend(&out, begin_.text(), fields_.text()); }

 private:
  Writer begin_;
  Writer fields_;
};

void AppendBytes(absl::Span<const std::byte> bytes, std::string& out) {
  out.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

absl::Status Contradiction(absl::string_view what, uint64_t declared, uint64_t there) {
  return absl::InvalidArgumentError(absl::StrCat("malformed chunk message: its ", what, " is declared as ", declared,
                                                 " bytes, ", there, " are there"));
}

}  // namespace

std::string EncodeChunkPrefix(const ChunkHeader& header, uint64_t payload_bytes) {
  std::string prefix;
  ChunkPrefix(header, payload_bytes).AppendTo(prefix);
  return prefix;
}

// An entry has the form of a message with only this chunk: in both, the chunk is field 1.
void AppendBatchEntry(const ChunkHeader& header, absl::Span<const std::byte> payload, std::string& entries) {
  ChunkPrefix(header, payload.size()).AppendTo(entries);
  AppendBytes(payload, entries);
}

std::string EncodeBatchPrefix(uint64_t entries_bytes) {
  Writer prefix;
  prefix.Byte(kBatch);
  prefix.Varint(entries_bytes);
  return std::string(prefix.text());
}

bool IsBatch(std::byte first) { return std::to_integer<uint8_t>(first) == kBatch; }

std::optional<std::vector<ChunkView>> DecodeBatch(absl::Span<const std::byte> message) {
  std::vector<ChunkView> chunks;
  while (!message.empty()) {
    absl::Span<const std::byte> entries = TakeField(kBatch, message);
    if (entries.empty()) return std::nullopt;
    while (!entries.empty()) {
      const absl::Span<const std::byte> rest = entries;
      TakeField(kChunk, entries);
      const absl::Span<const std::byte> entry = rest.first(rest.size() - entries.size());
      const absl::StatusOr<std::optional<DecodedChunk>> chunk = DecodeChunkPrefix(entry, entry.size());
      if (!chunk.ok() || !chunk->has_value()) return std::nullopt;
      chunks.push_back({(*chunk)->header, entry.subspan((*chunk)->payload_offset, (*chunk)->payload_bytes)});
    }
  }
  return chunks;
}

absl::StatusOr<std::optional<DecodedChunk>> DecodeChunkPrefix(absl::Span<const std::byte> head,
                                                              uint64_t message_bytes) {
  Reader reader(head, message_bytes);
  if (!reader.TryTag(kChunk)) return std::nullopt;
  const uint64_t chunk_bytes = reader.Varint();
  if (reader.state() == Reader::State::kOk) {
    if (chunk_bytes > reader.rest()) return Contradiction("chunk", chunk_bytes, reader.rest());
    if (chunk_bytes < reader.rest()) return std::nullopt;
  }

  DecodedChunk chunk;
  ChunkHeader& header = chunk.header;
  header.tensor = reader.VarintField(kTensor);
  header.offset = reader.VarintField(kOffset);
  header.encoding = static_cast<int>(reader.VarintField(kEncoding, std::numeric_limits<int32_t>::max()));
  header.decoded_bytes = reader.VarintField(kDecodedBytes);
  if (reader.TryTag(kDigest)) {
    header.digest = reader.Fixed64();
    if (header.digest == 0) reader.Fail(Reader::State::kOtherForm);
  }
  if (reader.TryTag(kTensorDigest)) header.tensor_digest = reader.Fixed64();
  if (!reader.TryTag(kPayload)) reader.Fail(Reader::State::kOtherForm);
  chunk.payload_bytes = reader.Varint();
  chunk.payload_offset = reader.position();

  switch (reader.state()) {
    case Reader::State::kOtherForm:
      return std::nullopt;
    case Reader::State::kTruncated:
      return absl::InvalidArgumentError(
          absl::StrCat("malformed chunk message: it ends within a field, after ", message_bytes, " bytes"));
    case Reader::State::kOk:
      break;
  }
  if (chunk.payload_bytes > reader.rest()) return Contradiction("payload", chunk.payload_bytes, reader.rest());
  if (chunk.payload_bytes < reader.rest()) return std::nullopt;
  return chunk;
}

}  // namespace refit
