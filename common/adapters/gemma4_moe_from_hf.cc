#include <algorithm>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/adapters/gemma4_moe_names.h"
#include "common/adapters/gemma4_moe_plan.h"

namespace refit {
namespace {

// The expert tensors of a layer.
struct LayerTensors {
  std::string layer;
  std::vector<std::pair<std::string, size_t>> parts;  // in input order

  std::optional<size_t> Part(absl::string_view name) const {
    for (const auto& [part, index] : parts) {
      if (part == name) return index;
    }
    return std::nullopt;
  }
};

class FromHfPlanner {
 public:
  FromHfPlanner(const Gemma4MoeConfig& config, DType adapter_dtype, absl::Span<const TensorSpec> hf,
                const ExpertMesh& mesh)
      : config_(config), adapter_dtype_(adapter_dtype), hf_(hf), mesh_(mesh) {}

  absl::StatusOr<std::vector<NativeOutput>> Run() {
    if (absl::Status status = CheckOptions(); !status.ok()) return status;
    for (size_t i = 0; i < hf_.size(); ++i) {
      if (absl::Status status = Sort(i); !status.ok()) return status;
    }
    const std::string prefix = absl::StrCat(gemma4::ModelPrefix(hf_), "language_model.");
    for (const LayerTensors& layer : layers_) {
      if (absl::Status status = PlanLayer(layer, prefix); !status.ok()) return status;
    }
    return std::move(outputs_);
  }

 private:
  absl::Status CheckOptions() {
    if (absl::Status status = CheckCastTarget(adapter_dtype_); !status.ok()) return status;
    if (config_.n_routed_experts < 1) {
      return absl::InvalidArgumentError(absl::StrCat("n_routed_experts is ", config_.n_routed_experts));
    }
    if (mesh_.ep_shard_size < 1 || mesh_.ep_shard_rank < 0 || mesh_.ep_shard_rank >= mesh_.ep_shard_size) {
      return absl::InvalidArgumentError(absl::StrCat("ep_shard rank ", mesh_.ep_shard_rank, " of ", mesh_.ep_shard_size,
                                                     " ranks: expected 0 <= rank < size"));
    }
    absl::StatusOr<IndexRange> experts = ExpertsOfRank(config_.n_routed_experts, mesh_.ep_rank, mesh_.ep_size);
    if (!experts.ok()) return experts.status();
    experts_ = *experts;
    return absl::OkStatus();
  }

  // Emits a tensor that passes. Collects one that is combined with others of its layer.
  absl::Status Sort(size_t index) {
    const TensorSpec& spec = hf_[index];
    if (std::optional<gemma4::LayerPart> router = gemma4::FindHfRouter(spec.name)) {
      if (router->part == gemma4::kScalePart) return AddPart(*router, index);
      return Emit(Pass(gemma4::NativeRouterName(spec.name, *router), index));
    }
    if (std::optional<gemma4::LayerPart> expert = gemma4::FindHfExpert(spec.name)) return AddPart(*expert, index);
    return Emit(Pass(spec.name, index));
  }

  NativeOutput Pass(std::string name, size_t index) const {
    NativeOutput output;
    output.native = {std::move(name), hf_[index].dtype, hf_[index].shape};
    output.source = index;
    return output;
  }

  absl::Status Emit(NativeOutput output) {
    const auto [owner, is_new] = owners_.emplace(output.native.name, output.source);
    if (!is_new) return Collision(owner->second, output.source, output.native.name);
    outputs_.push_back(std::move(output));
    return absl::OkStatus();
  }

  absl::Status Collision(size_t first, size_t second, absl::string_view what) const {
    return absl::InvalidArgumentError(absl::StrCat("HF tensors ", Printable(hf_[first].name), " (at ", first, ") and ",
                                                   Printable(hf_[second].name), " (at ", second, ") both become ",
                                                   Printable(what)));
  }

  absl::Status AddPart(const gemma4::LayerPart& found, size_t index) {
    const auto [place, is_new] = layer_index_.emplace(found.layer, layers_.size());
    if (is_new) layers_.push_back({found.layer, {}});
    LayerTensors& layer = layers_[place->second];
    if (std::optional<size_t> first = layer.Part(found.part)) {
      return Collision(*first, index, absl::StrCat(found.layer, " ", found.part));
    }
    layer.parts.emplace_back(found.part, index);
    return absl::OkStatus();
  }

  absl::Status CheckComplete(const LayerTensors& layer) const {
    std::vector<absl::string_view> missing;
    for (absl::string_view part : {gemma4::kGateUpPart, gemma4::kDownPart, gemma4::kScalePart}) {
      if (!layer.Part(part).has_value()) missing.push_back(part);
    }
    if (missing.empty()) return absl::OkStatus();
    std::vector<absl::string_view> available;
    for (const auto& [part, index] : layer.parts) available.emplace_back(part);
    return absl::InvalidArgumentError(absl::StrCat("Incomplete expert weights for ", layer.layer, ": missing ",
                                                   absl::StrJoin(missing, ", "),
                                                   ". Available keys: ", absl::StrJoin(available, ", ")));
  }

  absl::Status CheckExperts(const TensorSpec& spec, size_t rank) const {
    if (spec.shape.size() != rank || spec.shape[0] != config_.n_routed_experts) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", Printable(spec.name), " has shape ", ToString(spec.shape), ", expected ", rank,
                       " dimension", rank == 1 ? "" : "s", ", the first of ", config_.n_routed_experts, " experts"));
    }
    if (!IsCastable(spec.dtype)) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", Printable(spec.name), " has dtype ", Name(spec.dtype),
                                                     ", expected F64, F32, F16 or BF16"));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<IndexRange> RowsOfRank(const TensorSpec& spec, int64_t rows) const {
    if (rows % mesh_.ep_shard_size != 0) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", Printable(spec.name), " has ", rows,
                                                     " native rows, which ", mesh_.ep_shard_size,
                                                     " ep_shard ranks do not divide"));
    }
    const int64_t share = rows / mesh_.ep_shard_size;
    return IndexRange{mesh_.ep_shard_rank * share, (mesh_.ep_shard_rank + 1) * share};
  }

  absl::Status PlanLayer(const LayerTensors& layer, absl::string_view prefix) {
    if (absl::Status status = CheckComplete(layer); !status.ok()) return status;
    const size_t scale = *layer.Part(gemma4::kScalePart);
    if (absl::Status status = CheckExperts(hf_[scale], 1); !status.ok()) return status;

    const std::string layer_prefix = absl::StrCat(prefix, layer.layer);
    absl::Status status =
        EmitExperts(NativeOutput::Kind::kGateAndUp, absl::StrCat(layer_prefix, gemma4::kGateAndUpNative),
                    *layer.Part(gemma4::kGateUpPart), scale);
    if (!status.ok()) return status;
    return EmitExperts(NativeOutput::Kind::kScaledDown, absl::StrCat(layer_prefix, gemma4::kDownNative),
                       *layer.Part(gemma4::kDownPart), scale);
  }

  absl::Status EmitExperts(NativeOutput::Kind kind, std::string name, size_t source, size_t scale) {
    const TensorSpec& hf = hf_[source];
    if (absl::Status status = CheckExperts(hf, 3); !status.ok()) return status;
    const int64_t native_rows = hf.shape[2];
    const int64_t native_columns = hf.shape[1];
    absl::StatusOr<IndexRange> rows = RowsOfRank(hf, native_rows);
    if (!rows.ok()) return rows.status();

    NativeOutput output;
    output.native = {std::move(name), adapter_dtype_, {experts_.size(), rows->size(), native_columns}};
    output.kind = kind;
    output.source = source;
    output.scale = scale;
    output.experts = experts_;
    output.rows = *rows;
    return Emit(std::move(output));
  }

  const Gemma4MoeConfig config_;
  const DType adapter_dtype_;
  const absl::Span<const TensorSpec> hf_;
  const ExpertMesh mesh_;
  IndexRange experts_;
  std::vector<NativeOutput> outputs_;
  std::unordered_map<std::string, size_t> owners_;  // native name to index of the HF tensor that it is made from
  std::vector<LayerTensors> layers_;                // in input order
  std::unordered_map<std::string, size_t> layer_index_;
};

}  // namespace

absl::StatusOr<IndexRange> ExpertsOfRank(int64_t experts, int64_t rank, int64_t size) {
  if (size < 1 || rank < 0 || rank >= size) {
    return absl::InvalidArgumentError(
        absl::StrCat("ep rank ", rank, " of ", size, " ranks: expected 0 <= rank < size"));
  }
  const int64_t share = experts / size;
  const int64_t longer = experts % size;
  const int64_t begin = rank * share + std::min(rank, longer);
  return IndexRange{begin, begin + share + (rank < longer ? 1 : 0)};
}

absl::StatusOr<std::vector<NativeOutput>> PlanGemma4MoeFromHf(const Gemma4MoeConfig& config, DType adapter_dtype,
                                                              absl::Span<const TensorSpec> hf, const ExpertMesh& mesh) {
  return FromHfPlanner(config, adapter_dtype, hf, mesh).Run();
}

}  // namespace refit
