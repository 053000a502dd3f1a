#include "refit/tensor_spec.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace refit {
namespace {

constexpr size_t kMaxPrintableBytes = 200;

struct CodePoint {
  char32_t value;
  size_t bytes;  // 0: not valid UTF-8
};

// Decodes the first code point of `text`, which is not empty. Rejects overlong forms, surrogates, and values above
// U+10FFFF.
CodePoint DecodeUtf8(absl::string_view text) {
  constexpr CodePoint kInvalid{0, 0};
  const auto lead = static_cast<unsigned char>(text[0]);
  if (lead < 0x80) return {lead, 1};
  const size_t bytes = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || text.size() < bytes) return kInvalid;
  char32_t value = lead & (0x7F >> bytes);
  for (size_t i = 1; i < bytes; ++i) {
    const auto next = static_cast<unsigned char>(text[i]);
    if ((next & 0xC0) != 0x80) return kInvalid;
    value = value << 6 | (next & 0x3F);
  }
  const bool overlong = (bytes == 3 && value < 0x800) || (bytes == 4 && value < 0x10000);
  const bool surrogate = value >= 0xD800 && value <= 0xDFFF;
  if (overlong || surrogate || value > 0x10FFFF) return kInvalid;
  return {value, bytes};
}

bool IsControl(char32_t value) { return value < 0x20 || (value >= 0x7F && value < 0xA0); }

// True for almost all names, and cheap, because there are very many names.
bool IsPlainAscii(absl::string_view name) {
  return std::all_of(name.begin(), name.end(), [](char c) { return c >= 0x20 && c < 0x7F; });
}

absl::Status CheckCharacters(absl::string_view name) {
  if (IsPlainAscii(name)) return absl::OkStatus();
  for (size_t at = 0; at < name.size();) {
    const CodePoint point = DecodeUtf8(name.substr(at));
    if (point.bytes == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor name \"", Printable(name), "\" is no valid UTF-8 at byte ", at));
    }
    if (IsControl(point.value)) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor name \"", Printable(name), "\" has a control character at byte ", at));
    }
    at += point.bytes;
  }
  return absl::OkStatus();
}

}  // namespace

uint64_t TensorSpec::ByteSize() const { return ByteCount(dtype, shape).value_or(0); }

std::string TensorSpec::ToString() const {
  return absl::StrCat(Printable(name), " ", Name(dtype), " ", refit::ToString(shape));
}

absl::Status Validate(const TensorSpec& spec, size_t max_name_bytes) {
  if (spec.name.empty()) return absl::InvalidArgumentError("a tensor has an empty name");
  if (spec.name.size() > max_name_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("tensor name \"", Printable(spec.name), "\" has ", spec.name.size(),
                                                   " bytes; at most ", max_name_bytes, " are accepted"));
  }
  if (absl::Status status = CheckCharacters(spec.name); !status.ok()) return status;
  if (absl::StatusOr<uint64_t> bytes = ByteCount(spec.dtype, spec.shape); !bytes.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor \"", Printable(spec.name), "\": ", bytes.status().message()));
  }
  return absl::OkStatus();
}

std::string Printable(absl::string_view name) {
  constexpr absl::string_view kCut = "...";
  std::string out;
  size_t cut = 0;  // the last place at which a cut leaves room for the mark
  while (!name.empty()) {
    const CodePoint point = DecodeUtf8(name);
    const size_t bytes = point.bytes == 0 ? 1 : point.bytes;
    if (point.bytes == 0 || IsControl(point.value)) {
      for (char c : name.substr(0, bytes)) absl::StrAppendFormat(&out, "\\x%02x", static_cast<unsigned char>(c));
    } else {
      absl::StrAppend(&out, name.substr(0, bytes));
    }
    if (out.size() > kMaxPrintableBytes) {
      out.resize(cut);
      return absl::StrCat(out, kCut);
    }
    if (out.size() + kCut.size() <= kMaxPrintableBytes) cut = out.size();
    name.remove_prefix(bytes);
  }
  return out;
}

}  // namespace refit
