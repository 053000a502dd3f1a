// A source of synthetic values. A value depends only on seed, tensor name and the index of its 8-byte word. So any part
// of a tensor can be made by itself, on any machine.
#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "client/native/native_source.h"
#include "client/native/synthetic_manifests.h"

namespace refit {
namespace {

constexpr char kLayerPrefix[] = "model.language_model.layers.";

struct Model {
  const char* name;
  const char* manifest;
};

const Model kModels[] = {
    {"gemma4_26b_a4b", synthetic_manifests::gemma4_26b},
    {"gemma4_tiny", synthetic_manifests::gemma4_tiny},
};

// An element is (random word & random) | fixed. For floating point, this leaves the sign, the mantissa, and exponents
// of magnitudes from 2^-7 (F8_E4M3: 0) to below 1.
struct ElementBits {
  uint64_t random;
  uint64_t fixed;
};

constexpr uint64_t EveryByte(uint64_t byte) { return byte * 0x0101010101010101; }
constexpr uint64_t EveryTwo(uint64_t two) { return two * 0x0001000100010001; }
constexpr uint64_t EveryFour(uint64_t four) { return four * 0x0000000100000001; }

ElementBits BitsOf(DType dtype) {
  switch (dtype) {
    case DType::kF64:
      return {0x806fffffffffffff, 0x3f80000000000000};
    case DType::kF32:
      return {EveryFour(0x837fffff), EveryFour(0x3c000000)};
    case DType::kF16:
      return {EveryTwo(0x9bff), EveryTwo(0x2000)};
    case DType::kBF16:
      return {EveryTwo(0x837f), EveryTwo(0x3c00)};
    case DType::kF8E4M3:
      return {EveryByte(0xb7), 0};
    case DType::kF8E5M2:
      return {EveryByte(0x9b), EveryByte(0x20)};
    case DType::kBool:
      return {EveryByte(0x01), 0};
    default:
      return {~uint64_t{0}, 0};
  }
}

constexpr uint64_t kGoldenRatio = 0x9e3779b97f4a7c15;

// The finaliser of SplitMix64.
constexpr uint64_t Mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

// FNV-1a.
uint64_t HashName(const std::string& name) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

class Words {
 public:
  Words(uint64_t seed, const TensorSpec& spec)
      : key_(Mix(seed + kGoldenRatio) ^ HashName(spec.name)), bits_(BitsOf(spec.dtype)) {}

  // Fills `out` with bytes [offset, offset + out.size()) of the tensor.
  void Fill(uint64_t offset, absl::Span<std::byte> out) const {
    if (const uint64_t skip = offset % kBytes; skip != 0) {
      const auto head = out.subspan(0, kBytes - skip);
      CopyPart(offset / kBytes, skip, head);
      offset += head.size();
      out.remove_prefix(head.size());
    }
    uint64_t index = offset / kBytes;
    const size_t words = out.size() / kBytes;
    for (size_t i = 0; i < words; ++i, ++index) {
      const uint64_t word = At(index);
      std::memcpy(out.data() + i * kBytes, &word, kBytes);
    }
    CopyPart(index, 0, out.subspan(words * kBytes));
  }

 private:
  static constexpr size_t kBytes = sizeof(uint64_t);

  uint64_t At(uint64_t index) const { return (Mix(key_ + index * kGoldenRatio) & bits_.random) | bits_.fixed; }

  void CopyPart(uint64_t index, size_t skip, absl::Span<std::byte> out) const {
    const uint64_t word = At(index);
    if (!out.empty()) std::memcpy(out.data(), reinterpret_cast<const std::byte*>(&word) + skip, out.size());
  }

  uint64_t key_;
  ElementBits bits_;
};

class SyntheticSource final : public NativeSource {
 public:
  SyntheticSource(std::vector<TensorSpec> tensors, uint64_t seed) : tensors_(std::move(tensors)), seed_(seed) {}

  const std::vector<TensorSpec>& tensors() const override { return tensors_; }

  absl::Span<const std::byte> Read(size_t index, uint64_t offset, uint64_t size,
                                   absl::Span<std::byte> scratch) const override {
    const absl::Span<std::byte> out = scratch.subspan(0, size);
    Words(seed_, tensors_[index]).Fill(offset, out);
    return out;
  }

  bool is_resident() const override { return false; }

 private:
  std::vector<TensorSpec> tensors_;
  uint64_t seed_;
};

// The language model's layer that a tensor belongs to; -1 if it belongs to none.
int LayerOf(const std::string& name) {
  absl::string_view rest = name;
  int layer = -1;
  if (!absl::ConsumePrefix(&rest, kLayerPrefix)) return -1;
  return absl::SimpleAtoi(rest.substr(0, rest.find('.')), &layer) ? layer : -1;
}

absl::StatusOr<std::vector<TensorSpec>> ParseManifest(const Model& model) {
  std::vector<TensorSpec> tensors;
  try {
    for (const nlohmann::json& entry : nlohmann::json::parse(model.manifest)) {
      const absl::StatusOr<DType> dtype = ParseDType(entry.at("dtype").get<std::string>());
      if (!dtype.ok()) return dtype.status();
      tensors.push_back({entry.at("name").get<std::string>(), *dtype, entry.at("shape").get<Shape>()});
    }
  } catch (const nlohmann::json::exception& error) {
    return absl::InternalError(absl::StrCat("the manifest of ", model.name, ": ", error.what()));
  }
  return tensors;
}

absl::StatusOr<Model> FindModel(const std::string& name) {
  std::string known;
  for (const Model& model : kModels) {
    if (name == model.name) return model;
    absl::StrAppend(&known, known.empty() ? "" : ", ", model.name);
  }
  return absl::NotFoundError(absl::StrCat("no synthetic model ", Printable(name), "; known: ", known));
}

}  // namespace

absl::StatusOr<std::shared_ptr<const NativeSource>> OpenSyntheticSource(const SyntheticOptions& options) {
  const absl::StatusOr<Model> model = FindModel(options.model);
  if (!model.ok()) return model.status();
  absl::StatusOr<std::vector<TensorSpec>> tensors = ParseManifest(*model);
  if (!tensors.ok()) return tensors.status();

  int layers = 0;
  for (const TensorSpec& spec : *tensors) layers = std::max(layers, LayerOf(spec.name) + 1);
  if (options.layers > layers) {
    return absl::InvalidArgumentError(
        absl::StrCat(model->name, " has ", layers, " layers; ", options.layers, " were asked for"));
  }
  if (options.layers >= 0) {
    const auto dropped = [&](const TensorSpec& spec) { return LayerOf(spec.name) >= options.layers; };
    tensors->erase(std::remove_if(tensors->begin(), tensors->end(), dropped), tensors->end());
  }
  if (options.dtype.has_value()) {
    if (!IsCastable(*options.dtype)) {
      return absl::InvalidArgumentError(
          absl::StrCat("synthetic tensors cannot be ", Name(*options.dtype), "; expected F64, F32, F16 or BF16"));
    }
    for (TensorSpec& spec : *tensors) {
      if (IsCastable(spec.dtype)) spec.dtype = *options.dtype;
    }
  }
  return std::make_shared<const SyntheticSource>(*std::move(tensors), options.seed);
}

}  // namespace refit
