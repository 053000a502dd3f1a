#include "common/adapters/gemma4_moe_plan.h"

#include <re2/re2.h>

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "common/tensor/kernels.h"

namespace refit {
namespace {

constexpr absl::string_view kGateAndUpNative = ".moe.experts.gate_and_up_projs";
constexpr absl::string_view kGateAndUpHf = ".experts.gate_up_proj";
constexpr absl::string_view kDownNative = ".moe.experts.down_projs";
constexpr absl::string_view kDownHf = ".experts.down_proj";
constexpr absl::string_view kScaleHf = ".router.per_expert_scale";

constexpr absl::string_view kGateUpPart = "gate_up_proj";
constexpr absl::string_view kDownPart = "down_proj";
constexpr absl::string_view kScalePart = "per_expert_scale";

re2::StringPiece Piece(absl::string_view text) { return {text.data(), text.size()}; }

// The end as the reference's `$` has it, and digits as its `\d` has them.
const RE2& NativeRouter() {
  static const RE2 re(R"((layers\.\p{Nd}+)\.moe\.gate\.(proj\.weight|scale)(?:\n?\z))");
  return re;
}
const RE2& HfRouter() {
  static const RE2 re(R"((layers\.\p{Nd}+)\.router\.(proj\.weight|scale|per_expert_scale)(?:\n?\z))");
  return re;
}
const RE2& HfExpert() {
  static const RE2 re(R"((layers\.\p{Nd}+)\.(?:moe|experts)\.(gate_up_proj|down_proj|per_expert_scale)(?:\n?\z))");
  return re;
}
const RE2& UpToLastLayer() {
  static const RE2 re(R"((.*layers\.\p{Nd}+)\.)");
  return re;
}
const RE2& FirstLayer() {
  static const RE2 re(R"((layers\.\p{Nd}+))");
  return re;
}

// What a name says before anything else of it counts.
struct LayerPart {
  std::string layer;  // "layers.N"
  std::string part;
};

std::optional<LayerPart> Find(const RE2& re, absl::string_view name) {
  LayerPart found;
  if (!RE2::PartialMatch(Piece(name), re, &found.layer, &found.part)) return std::nullopt;
  return found;
}

// Every occurrence, as str.replace does it.
std::string RenameRouter(absl::string_view name, const LayerPart& router, absl::string_view from,
                         absl::string_view to) {
  return absl::StrReplaceAll(
      name, {{absl::StrCat(router.layer, from, router.part), absl::StrCat(router.layer, to, router.part)}});
}

std::optional<std::string> HfRouterName(absl::string_view native) {
  const std::optional<LayerPart> router = Find(NativeRouter(), native);
  if (!router.has_value()) return std::nullopt;
  return RenameRouter(native, *router, ".moe.gate.", ".router.");
}

// The native tensor's role, in the reference's order of tests; a router was looked for before.
enum class Role { kGateAndUp, kDown, kOther };

Role RoleOf(absl::string_view name) {
  if (absl::StrContains(name, kGateAndUpNative)) return Role::kGateAndUp;
  if (absl::StrContains(name, kDownNative)) return Role::kDown;
  return Role::kOther;
}

// Whether it can be transposed.
absl::Status CheckHasMatrices(const TensorSpec& native) {
  if (!CanTranspose(native.dtype, native.dtype)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "expert tensor ", Printable(native.name), " is ", Name(native.dtype),
        ": packed values cannot be transposed; expected one value an element (the adapter \"identity\" passes it)"));
  }
  if (native.shape.size() >= 2) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("expert tensor ", Printable(native.name), " has shape ",
                                                 ToString(native.shape), ", expected at least 2 dimensions"));
}

absl::Status NoLayer(const TensorSpec& native, absl::string_view expected) {
  return absl::InvalidArgumentError(
      absl::StrCat("expert tensor ", Printable(native.name), " has no \"", expected, "\" in its name"));
}

Shape SwapLastTwo(Shape shape) {
  std::swap(shape[shape.size() - 1], shape[shape.size() - 2]);
  return shape;
}

PlannedOutput Transposed(std::string name, DType dtype, const TensorSpec& native) {
  const bool experts = native.shape.size() > 2;
  return {{std::move(name), dtype, SwapLastTwo(native.shape)}, Transform::kTransposeLastTwo, experts};
}

// What an expert tensor becomes, as far as the two ways to HF differ.
struct ExpertOutputs {
  std::string name;
  TensorSpec scale;  // of a down projection only
};

// The outputs of one native tensor, of this dtype: what both ways to HF have in common. `name_experts` is asked for
// expert tensors alone.
absl::StatusOr<std::vector<PlannedOutput>> PlanToHf(
    const TensorSpec& native, DType dtype, absl::FunctionRef<absl::StatusOr<ExpertOutputs>(Role)> name_experts) {
  std::vector<PlannedOutput> outputs;
  if (std::optional<std::string> router = HfRouterName(native.name)) {
    outputs.push_back({{*std::move(router), dtype, native.shape}, Transform::kPass});
    return outputs;
  }
  const Role role = RoleOf(native.name);
  if (role == Role::kOther) {
    outputs.push_back({{native.name, dtype, native.shape}, Transform::kPass});
    return outputs;
  }
  if (absl::Status status = CheckHasMatrices(native); !status.ok()) return status;
  absl::StatusOr<ExpertOutputs> experts = name_experts(role);
  if (!experts.ok()) return experts.status();
  outputs.push_back(Transposed(std::move(experts->name), dtype, native));
  if (role == Role::kDown) outputs.push_back({std::move(experts->scale), Transform::kOnes});
  return outputs;
}

bool UsesModelPrefix(absl::Span<const TensorSpec> tensors) {
  for (const TensorSpec& spec : tensors) {
    if (absl::StartsWith(spec.name, "model.")) return true;
  }
  return false;
}

absl::string_view ModelPrefix(absl::Span<const TensorSpec> tensors) { return UsesModelPrefix(tensors) ? "model." : ""; }

absl::Status CheckAdapterDType(DType dtype) {
  ConvertOptions options;
  options.dtype = dtype;
  return Validate(options);
}

}  // namespace

absl::StatusOr<std::vector<PlannedOutput>> Gemma4MoeAdapter::PlanTensor(const TensorSpec& native,
                                                                        const ConvertOptions& options) const {
  if (options.Excludes(native.name)) return std::vector<PlannedOutput>();
  const DType dtype = options.OutputDType(native);
  return PlanToHf(native, dtype, [&](Role role) -> absl::StatusOr<ExpertOutputs> {
    if (role == Role::kGateAndUp) {
      return ExpertOutputs{absl::StrReplaceAll(native.name, {{kGateAndUpNative, kGateAndUpHf}}), {}};
    }
    std::string up_to_layer;
    if (!RE2::PartialMatch(Piece(native.name), UpToLastLayer(), &up_to_layer)) return NoLayer(native, "layers.N.");
    return ExpertOutputs{absl::StrReplaceAll(native.name, {{kDownNative, kDownHf}}),
                         {absl::StrCat(up_to_layer, kScaleHf), dtype, {native.shape[0]}}};
  });
}

absl::StatusOr<VersionPlan> PlanGemma4MoeToHf(const Gemma4MoeConfig& config, DType adapter_dtype,
                                              std::vector<TensorSpec> native, const PythonRegex* exclude) {
  if (absl::Status status = CheckAdapterDType(adapter_dtype); !status.ok()) return status;
  const std::string prefix = absl::StrCat(ModelPrefix(native), "language_model.");

  return AssemblePlan(std::move(native), [&](const TensorSpec& spec) {
    auto outputs = PlanToHf(spec, spec.dtype, [&](Role role) -> absl::StatusOr<ExpertOutputs> {
      std::string layer;
      if (!RE2::PartialMatch(Piece(spec.name), FirstLayer(), &layer)) return NoLayer(spec, "layers.N");
      return ExpertOutputs{absl::StrCat(prefix, layer, role == Role::kDown ? kDownHf : kGateAndUpHf),
                           {absl::StrCat(prefix, layer, kScaleHf), adapter_dtype, {config.n_routed_experts}}};
    });
    if (outputs.ok() && exclude != nullptr && !exclude->pattern().empty()) {
      outputs->erase(std::remove_if(outputs->begin(), outputs->end(),
                                    [&](const PlannedOutput& output) { return exclude->Match(output.hf.name); }),
                     outputs->end());
    }
    return outputs;
  });
}

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

namespace {

// A layer's expert tensors, as they were found.
struct LayerTensors {
  std::string layer;
  std::vector<std::pair<std::string, size_t>> parts;  // in order of their coming

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
    const std::string prefix = absl::StrCat(ModelPrefix(hf_), "language_model.");
    for (const LayerTensors& layer : layers_) {
      if (absl::Status status = PlanLayer(layer, prefix); !status.ok()) return status;
    }
    return std::move(outputs_);
  }

 private:
  absl::Status CheckOptions() {
    if (absl::Status status = CheckAdapterDType(adapter_dtype_); !status.ok()) return status;
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

  // Emits what passes, and sets aside what is put together layer by layer.
  absl::Status Sort(size_t index) {
    const TensorSpec& spec = hf_[index];
    if (std::optional<LayerPart> router = Find(HfRouter(), spec.name)) {
      if (router->part == kScalePart) return AddPart(*router, index);
      return Emit(Pass(RenameRouter(spec.name, *router, ".router.", ".moe.gate."), index));
    }
    if (std::optional<LayerPart> expert = Find(HfExpert(), spec.name)) return AddPart(*expert, index);
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

  absl::Status AddPart(const LayerPart& found, size_t index) {
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
    for (absl::string_view part : {kGateUpPart, kDownPart, kScalePart}) {
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
    const size_t scale = *layer.Part(kScalePart);
    if (absl::Status status = CheckExperts(hf_[scale], 1); !status.ok()) return status;

    const std::string layer_prefix = absl::StrCat(prefix, layer.layer);
    absl::Status status = EmitExperts(NativeOutput::Kind::kGateAndUp, absl::StrCat(layer_prefix, kGateAndUpNative),
                                      *layer.Part(kGateUpPart), scale);
    if (!status.ok()) return status;
    return EmitExperts(NativeOutput::Kind::kScaledDown, absl::StrCat(layer_prefix, kDownNative), *layer.Part(kDownPart),
                       scale);
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
  std::unordered_map<std::string, size_t> owners_;  // native name to index of the HF tensor that made it
  std::vector<LayerTensors> layers_;                // in order of their coming
  std::unordered_map<std::string, size_t> layer_index_;
};

}  // namespace

absl::StatusOr<std::vector<NativeOutput>> PlanGemma4MoeFromHf(const Gemma4MoeConfig& config, DType adapter_dtype,
                                                              absl::Span<const TensorSpec> hf, const ExpertMesh& mesh) {
  return FromHfPlanner(config, adapter_dtype, hf, mesh).Run();
}

}  // namespace refit
