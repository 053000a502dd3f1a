#include "tests/bench/delta_codecs.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "common/delta/changes.h"
#include "common/delta/delta_decoder.h"
#include "common/delta/delta_encoder.h"
#include "common/delta/delta_format.h"
#include "common/tensor/unaligned.h"
#ifdef REFIT_WITH_ZSTD
#include <zstd.h>
#endif

namespace refit {
namespace {

using Element = uint16_t;

// `limit`: DeltaLimits::changed.
class Ours : public DeltaCodec {
 public:
  explicit Ours(double limit) : limits_{limit} {}

  void Encode(absl::Span<const std::byte> base, absl::Span<const std::byte> now, Payload& payload) override {
    payload = std::move(encoder_.Encode(base, now, sizeof(Element), limits_)->payload);
  }
  void ApplyInPlace(absl::Span<const std::byte> payload, absl::Span<std::byte> range) override {
    if (!decoder_.Read(payload, range.size(), sizeof(Element)).ok() || !decoder_.ApplyInPlace(range).ok()) std::abort();
  }

 private:
  const DeltaLimits limits_;
  DeltaEncoder encoder_;
  DeltaDecoder decoder_;
};

// verl's `delta_sharded`, vLLM's sparse transfer: for each change its 32-bit position, then for each its new value.
// Changes are found as ours are, here and below.
class PositionsAndValues : public DeltaCodec {
 public:
  void Encode(absl::Span<const std::byte> base, absl::Span<const std::byte> now, Payload& payload) override {
    FindChanges(base, now, sizeof(Element), now.size(), changes_);
    payload.resize(changes_.count * kBytes);
    std::byte* values = payload.data() + changes_.count * sizeof(uint32_t);
    std::memcpy(payload.data(), changes_.positions.data(), changes_.count * sizeof(uint32_t));
    for (size_t i = 0; i < changes_.count; ++i) {
      Store(values + i * sizeof(Element), Load<Element>(now.data() + changes_.positions[i] * sizeof(Element)));
    }
  }
  void ApplyInPlace(absl::Span<const std::byte> payload, absl::Span<std::byte> range) override {
    const size_t count = payload.size() / kBytes;
    const std::byte* values = payload.data() + count * sizeof(uint32_t);
    for (size_t i = 0; i < count; ++i) {
      const auto position = Load<uint32_t>(payload.data() + i * sizeof(uint32_t));
      Store(range.data() + position * sizeof(Element), Load<Element>(values + i * sizeof(Element)));
    }
  }

 private:
  static constexpr size_t kBytes = sizeof(uint32_t) + sizeof(Element);

  Changes changes_;
};

#ifdef REFIT_WITH_ZSTD

// zstd at level 1 behind 8 bytes that say how many there were.
class Zstd {
 public:
  void Compress(absl::Span<const std::byte> plain, Payload& payload) {
    payload.resize(8 + ZSTD_compressBound(plain.size()));
    Store<uint64_t>(payload.data(), plain.size());
    const size_t bytes =
        ZSTD_compressCCtx(compressor_.get(), payload.data() + 8, payload.size() - 8, plain.data(), plain.size(), 1);
    if (ZSTD_isError(bytes) != 0) std::abort();
    payload.resize(8 + bytes);
  }
  absl::Span<const std::byte> Decompress(absl::Span<const std::byte> payload) {
    const auto bytes = Load<uint64_t>(payload.data());
    if (plain_.size() < bytes) plain_.resize(bytes);
    if (ZSTD_decompressDCtx(decompressor_.get(), plain_.data(), plain_.size(), payload.data() + 8,
                            payload.size() - 8) != bytes) {
      std::abort();
    }
    return absl::MakeConstSpan(plain_).first(bytes);
  }

 private:
  std::unique_ptr<ZSTD_CCtx, size_t (*)(ZSTD_CCtx*)> compressor_{ZSTD_createCCtx(), ZSTD_freeCCtx};
  std::unique_ptr<ZSTD_DCtx, size_t (*)(ZSTD_DCtx*)> decompressor_{ZSTD_createDCtx(), ZSTD_freeDCtx};
  Payload plain_;
};

void Xor(absl::Span<const std::byte> from, std::byte* to) {
  for (size_t at = 0; at < from.size(); ++at) to[at] ^= from[at];
}

// slime's and ModelExpress's: the two ranges' XOR, all of it.
class DenseXor : public DeltaCodec {
 public:
  void Encode(absl::Span<const std::byte> base, absl::Span<const std::byte> now, Payload& payload) override {
    plain_.assign(now.begin(), now.end());
    Xor(base, plain_.data());
    zstd_.Compress(plain_, payload);
  }
  void ApplyInPlace(absl::Span<const std::byte> payload, absl::Span<std::byte> range) override {
    Xor(zstd_.Decompress(payload), range.data());
  }

 private:
  Payload plain_;
  Zstd zstd_;
};

// NeMo-RL's: gaps between changes in the smallest type that holds them all, and the changed elements' XORs.
class GapsAndXor : public DeltaCodec {
 public:
  void Encode(absl::Span<const std::byte> base, absl::Span<const std::byte> now, Payload& payload) override {
    FindChanges(base, now, sizeof(Element), now.size(), changes_);
    uint32_t widest = 0;
    ForEachGap([&](size_t, uint32_t gap) { widest = std::max(widest, gap); });
    const size_t gap_bytes = widest > 0xffff ? sizeof(uint32_t) : sizeof(uint16_t);
    plain_.resize(1 + changes_.count * (gap_bytes + sizeof(Element)));
    plain_[0] = static_cast<std::byte>(gap_bytes);
    std::byte* const xors = plain_.data() + 1 + changes_.count * gap_bytes;
    ForEachGap([&](size_t i, uint32_t gap) {
      std::memcpy(plain_.data() + 1 + i * gap_bytes, &gap, gap_bytes);
      const size_t at = changes_.positions[i] * sizeof(Element);
      Store<Element>(xors + i * sizeof(Element), Load<Element>(base.data() + at) ^ Load<Element>(now.data() + at));
    });
    zstd_.Compress(plain_, payload);
  }
  void ApplyInPlace(absl::Span<const std::byte> payload, absl::Span<std::byte> range) override {
    const absl::Span<const std::byte> plain = zstd_.Decompress(payload);
    const auto gap_bytes = std::to_integer<size_t>(plain[0]);
    const size_t count = (plain.size() - 1) / (gap_bytes + sizeof(Element));
    const std::byte* const gaps = plain.data() + 1;
    const std::byte* const xors = gaps + count * gap_bytes;
    std::byte* element = range.data();
    for (size_t i = 0; i < count; ++i, element += sizeof(Element)) {
      const size_t gap =
          gap_bytes == sizeof(uint16_t) ? Load<uint16_t>(gaps + i * gap_bytes) : Load<uint32_t>(gaps + i * gap_bytes);
      element += gap * sizeof(Element);
      Store<Element>(element, Load<Element>(element) ^ Load<Element>(xors + i * sizeof(Element)));
    }
  }

 private:
  template <typename Use>
  void ForEachGap(Use use) {
    for (size_t i = 0; i < changes_.count; ++i) {
      use(i, i == 0 ? changes_.positions[0] : changes_.positions[i] - changes_.positions[i - 1] - 1);
    }
  }

  Changes changes_;
  Payload plain_;
  Zstd zstd_;
};

// What ours would be with zstd for its codes: gaps and folded differences in a byte each, 255 standing for more.
class Bytes : public DeltaCodec {
 public:
  void Encode(absl::Span<const std::byte> base, absl::Span<const std::byte> now, Payload& payload) override {
    FindChanges(base, now, sizeof(Element), now.size(), changes_);
    plain_.clear();
    for (size_t i = 0; i < changes_.count; ++i) {
      Append(i == 0 ? changes_.positions[0] : changes_.positions[i] - changes_.positions[i - 1] - 1);
    }
    const size_t gap_bytes = plain_.size();
    for (size_t i = 0; i < changes_.count; ++i) {
      Append(Load<Element>(changes_.numbers.data() + i * sizeof(Element)));
    }
    const absl::Span<const std::byte> plain = plain_;
    zstd_.Compress(plain.first(gap_bytes), payload);
    zstd_.Compress(plain.subspan(gap_bytes), differences_);
    const uint64_t first_bytes = payload.size();
    payload.insert(payload.end(), differences_.begin(), differences_.end());
    payload.insert(payload.begin(), sizeof(first_bytes), {});
    Store(payload.data(), first_bytes);
  }
  void ApplyInPlace(absl::Span<const std::byte> payload, absl::Span<std::byte> range) override {
    const auto first_bytes = Load<uint64_t>(payload.data());
    payload.remove_prefix(sizeof(first_bytes));
    absl::Span<const std::byte> gaps = zstd_.Decompress(payload.first(first_bytes));
    absl::Span<const std::byte> differences = more_zstd_.Decompress(payload.subspan(first_bytes));
    std::byte* element = range.data();
    for (; !gaps.empty(); element += sizeof(Element)) {
      element += Take(gaps) * sizeof(Element);
      const auto difference = Unfold(static_cast<Element>(Take(differences)));
      Store<Element>(element, static_cast<Element>(Load<Element>(element) + difference));
    }
  }

 private:
  void Append(uint32_t number) {
    for (; number >= 255; number -= 255) plain_.push_back(std::byte{255});
    plain_.push_back(static_cast<std::byte>(number));
  }
  static uint32_t Take(absl::Span<const std::byte>& bytes) {
    uint32_t number = 0;
    size_t i = 0;
    for (; bytes[i] == std::byte{255}; ++i) number += 255;
    number += std::to_integer<uint32_t>(bytes[i]);
    bytes.remove_prefix(i + 1);
    return number;
  }

  Changes changes_;
  Payload plain_;
  Payload differences_;
  Zstd zstd_;
  Zstd more_zstd_;
};

#endif  // REFIT_WITH_ZSTD

}  // namespace

std::vector<NamedCodec> DeltaCodecs() {
  std::vector<NamedCodec> codecs;
  codecs.push_back({"refit", std::make_unique<Ours>(DeltaLimits().changed)});
  codecs.push_back({"refit, any number", std::make_unique<Ours>(1)});
  codecs.push_back({"int32 positions, values", std::make_unique<PositionsAndValues>()});
#ifdef REFIT_WITH_ZSTD
  codecs.push_back({"dense XOR, zstd 1", std::make_unique<DenseXor>()});
  codecs.push_back({"gaps, XOR, zstd 1", std::make_unique<GapsAndXor>()});
  codecs.push_back({"byte gaps, differences, zstd 1", std::make_unique<Bytes>()});
#endif
  return codecs;
}

}  // namespace refit
