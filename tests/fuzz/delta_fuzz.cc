// Payloads of deltas from strangers: refused, or they change exactly what they say, within the range. And any two
// ranges: what is encoded of them turns one into the other.
#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "common/delta/delta_composer.h"
#include "common/delta/delta_decoder.h"
#include "common/delta/delta_encoder.h"
#include "tests/fuzz/fuzz_check.h"
#include "tests/fuzz/fuzz_input.h"

namespace refit {
namespace {

using Bytes = std::vector<std::byte>;
using Kind = EncodedDelta::Kind;

constexpr DeltaLimits kAnyNumber{.changed = 1};

Bytes BytesOf(const std::string& text) {
  const auto* begin = reinterpret_cast<const std::byte*>(text.data());
  return Bytes(begin, begin + text.size());
}

uint64_t CountChanged(const Bytes& a, const Bytes& b, size_t element_size) {
  uint64_t count = 0;
  for (size_t at = 0; at < a.size(); at += element_size) {
    count += std::memcmp(a.data() + at, b.data() + at, element_size) != 0;
  }
  return count;
}

Bytes Applied(const DeltaDecoder& decoder, const Bytes& base) {
  Bytes result(base.size());
  FUZZ_CHECK(decoder.Apply(base, absl::MakeSpan(result)).ok());
  return result;
}

// Encoding `base` and `now` again gives what makes the one of the other, and so does composing it.
void CheckEncoded(const Bytes& base, const Bytes& now, size_t element_size) {
  const absl::StatusOr<EncodedDelta> delta = DeltaEncoder().Encode(base, now, element_size, kAnyNumber);
  FUZZ_CHECK(delta.ok());
  FUZZ_CHECK((delta->kind == Kind::kUnchanged) == (base == now));
  if (delta->kind != Kind::kDelta) return;
  FUZZ_CHECK(delta->payload.size() < now.size());
  DeltaDecoder decoder;
  const absl::Status read = decoder.Read(delta->payload, base.size(), element_size);
  FUZZ_CHECK(read.ok()) << read.ToString();
  FUZZ_CHECK(Applied(decoder, base) == now);
  const absl::Span<const std::byte> payloads[] = {delta->payload};
  const absl::StatusOr<EncodedDelta> composed =
      DeltaComposer().Compose(payloads, base.size(), element_size, kAnyNumber);
  FUZZ_CHECK(composed.ok() && composed->payload == delta->payload);
}

void CheckPayload(const Bytes& payload, const Bytes& base, size_t element_size) {
  DeltaDecoder decoder;
  const absl::Status read = decoder.Read(payload, base.size(), element_size);
  if (!read.ok()) {
    FUZZ_CHECK(read.code() == absl::StatusCode::kInvalidArgument && !read.message().empty());
    FUZZ_CHECK(decoder.changed() == 0);
    return;
  }
  const Bytes result = Applied(decoder, base);
  FUZZ_CHECK(decoder.changed() > 0 && CountChanged(base, result, element_size) == decoder.changed());
  Bytes range = base;
  FUZZ_CHECK(decoder.ApplyInPlace(absl::MakeSpan(range)).ok());
  FUZZ_CHECK(range == result);
  FUZZ_CHECK(decoder.RevertInPlace(absl::MakeSpan(range)).ok());
  FUZZ_CHECK(range == base);
  CheckEncoded(base, result, element_size);
}

}  // namespace
}  // namespace refit

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  refit::FuzzInput input(data, size);
  const size_t element_size = size_t{1} << input.Below(4);
  if (input.Bool()) {
    refit::Bytes base = refit::BytesOf(input.Bytes(element_size * input.Byte()));
    base.resize(base.size() / element_size * element_size);
    refit::Bytes now = refit::BytesOf(input.Rest());
    now.resize(base.size());
    refit::CheckEncoded(base, now, element_size);
  } else {
    refit::Bytes base(element_size * input.Integer<uint16_t>());
    for (size_t i = 0; i < base.size(); ++i) base[i] = static_cast<std::byte>(i * 7);
    refit::CheckPayload(refit::BytesOf(input.Rest()), base, element_size);
  }
  return 0;
}
