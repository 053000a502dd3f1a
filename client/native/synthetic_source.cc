// A source of synthetic values: the tensors of a model, without a file.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "client/native/native_source.h"
#include "client/native/synthetic_manifests.h"
#include "client/native/synthetic_values.h"

namespace refit {
namespace {

constexpr absl::string_view kLayerPrefixes[] = {"model.language_model.layers.", "model.layers."};

struct Model {
  const char* name;
  const char* manifest;
};

const Model kModels[] = {
    {"gemma4_26b_a4b", synthetic_manifests::gemma4_26b},
    {"gemma4_tiny", synthetic_manifests::gemma4_tiny},
    {"qwen3_30b_a3b", synthetic_manifests::qwen3_30b},
    {"deepseek_v3_1layer", synthetic_manifests::deepseek_v3_1layer},
    {"gpt_oss_20b", synthetic_manifests::gpt_oss_20b},
};

class SyntheticSource final : public NativeSource {
 public:
  SyntheticSource(std::vector<TensorSpec> tensors, SyntheticOptions options)
      : tensors_(std::move(tensors)), options_(std::move(options)) {}

  const std::vector<TensorSpec>& tensors() const override { return tensors_; }

  absl::Span<const std::byte> Read(size_t index, uint64_t offset, uint64_t size,
                                   absl::Span<std::byte> scratch) const override {
    const absl::Span<std::byte> out = scratch.subspan(0, size);
    FillSynthetic(options_, tensors_[index], offset, out);
    return out;
  }

  bool is_resident() const override { return false; }

 private:
  std::vector<TensorSpec> tensors_;
  SyntheticOptions options_;
};

// The language model's layer that a tensor belongs to; -1 if it belongs to none.
int LayerOf(const std::string& name) {
  for (const absl::string_view prefix : kLayerPrefixes) {
    absl::string_view rest = name;
    int layer = -1;
    if (!absl::ConsumePrefix(&rest, prefix)) continue;
    if (absl::SimpleAtoi(rest.substr(0, rest.find('.')), &layer)) return layer;
  }
  return -1;
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

absl::Status CheckSteps(const SyntheticOptions& options) {
  if (options.step > kMostSyntheticSteps) {
    return absl::InvalidArgumentError(absl::StrCat("synthetic step ", options.step, " is more than the ",
                                                   kMostSyntheticSteps, " that keep values finite"));
  }
  if (options.change >= 0 && options.change <= 1) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the fraction of synthetic elements that change at a step is ",
                                                 options.change, "; expected 0 to 1, such as 0.01 for 1 %"));
}

}  // namespace

absl::StatusOr<std::shared_ptr<const NativeSource>> OpenSyntheticSource(const SyntheticOptions& options) {
  if (absl::Status status = CheckSteps(options); !status.ok()) return status;
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
  return std::make_shared<const SyntheticSource>(*std::move(tensors), options);
}

}  // namespace refit
