#include "common/wire/chunk_codec.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"

namespace refit {
namespace {

// Wire types and tags of protobuf: (field number << 3) | wire type.
constexpr int kVarint = 0;
constexpr int kFixed64 = 1;
constexpr int kLengthDelimited = 2;
constexpr uint8_t Tag(int field, int wire_type) { return static_cast<uint8_t>(field << 3 | wire_type); }

constexpr uint8_t kChunk = Tag(1, kLengthDelimited);  // of PushRequest and of PullResponse
constexpr uint8_t kTensor = Tag(1, kVarint);
constexpr uint8_t kOffset = Tag(2, kVarint);
constexpr uint8_t kEncoding = Tag(3, kVarint);
constexpr uint8_t kDecodedBytes = Tag(4, kVarint);
constexpr uint8_t kDigest = Tag(5, kFixed64);
constexpr uint8_t kTensorDigest = Tag(6, kFixed64);
constexpr uint8_t kPayload = Tag(15, kLengthDelimited);

void AppendVarint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
}

// proto3 leaves out fields that have their default value.
void AppendVarintField(std::string& out, uint8_t tag, uint64_t value) {
  if (value == 0) return;
  out.push_back(static_cast<char>(tag));
  AppendVarint(out, value);
}

void AppendFixed64Field(std::string& out, uint8_t tag, uint64_t value) {
  out.push_back(static_cast<char>(tag));
  for (int shift = 0; shift < 64; shift += 8) out.push_back(static_cast<char>(value >> shift));
}

// Reads fields in the form that the encoder writes. Remembers the first thing that did not fit and then reads nothing
// more.
class Reader {
 public:
  enum class State { kOk, kOtherForm, kTruncated };

  Reader(absl::Span<const std::byte> head, uint64_t message_bytes)
      : head_(head.subspan(0, std::min<uint64_t>(head.size(), message_bytes))), message_bytes_(message_bytes) {}

  State state() const { return state_; }
  uint64_t position() const { return position_; }
  uint64_t rest() const { return message_bytes_ - position_; }

  // Consumes `tag` if it comes next.
  bool TryTag(uint8_t tag) {
    if (state_ != State::kOk || position_ >= head_.size() || std::to_integer<uint8_t>(head_[position_]) != tag)
      return false;
    ++position_;
    return true;
  }

  // A varint of the shortest form.
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

  // A varint field that is there only if it is not 0.
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

absl::Status Contradiction(absl::string_view what, uint64_t declared, uint64_t there) {
  return absl::InvalidArgumentError(absl::StrCat("malformed chunk message: its ", what, " is declared as ", declared,
                                                 " bytes, ", there, " are there"));
}

}  // namespace

std::string EncodeChunkPrefix(const ChunkHeader& header, uint64_t payload_bytes) {
  std::string fields;
  AppendVarintField(fields, kTensor, header.tensor);
  AppendVarintField(fields, kOffset, header.offset);
  AppendVarintField(fields, kEncoding, static_cast<uint32_t>(header.encoding));
  AppendVarintField(fields, kDecodedBytes, header.decoded_bytes);
  if (header.digest != 0) AppendFixed64Field(fields, kDigest, header.digest);
  if (header.tensor_digest.has_value()) AppendFixed64Field(fields, kTensorDigest, *header.tensor_digest);
  // Written also when empty, so that the payload is always there and last.
  fields.push_back(static_cast<char>(kPayload));
  AppendVarint(fields, payload_bytes);

  std::string prefix;
  prefix.reserve(kMaxChunkPrefixBytes);
  prefix.push_back(static_cast<char>(kChunk));
  AppendVarint(prefix, fields.size() + payload_bytes);
  prefix += fields;
  return prefix;
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
