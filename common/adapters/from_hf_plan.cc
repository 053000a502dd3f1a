#include "common/adapters/from_hf_plan.h"

#include <memory>
#include <set>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "common/adapters/adapter_registry.h"
#include "common/adapters/family_adapter.h"
#include "common/adapters/family_inverse.h"
#include "common/adapters/native_shape.h"
#include "common/adapters/recognise_family.h"

namespace refit {
namespace {

// A native tensor that is put together.
struct Candidate {
  std::string name;
  const BoundRule* rule = nullptr;
  std::vector<RulePiece> pieces;
};

bool HasData(const Candidate& native, const RulePiece& piece) {
  return native.rule == nullptr || native.rule->rule->outputs[piece.output].transform != Transform::kOnes;
}

class Planner {
 public:
  Planner(const BoundFamily& family, const FamilyInverse& inverse, absl::Span<const TensorSpec> hf)
      : family_(family), inverse_(inverse), hf_(hf) {}

  // The native tensors, with the dtype that their HF tensors have.
  absl::StatusOr<std::vector<TensorSpec>> Natives() {
    for (const TensorSpec& hf : hf_) {
      if (absl::Status status = Sort(hf); !status.ok()) return status;
    }
    std::vector<TensorSpec> natives;
    for (const Candidate& candidate : candidates_) {
      absl::StatusOr<TensorSpec> native = SpecOf(candidate);
      if (!native.ok()) return native.status();
      natives.push_back(*std::move(native));
    }
    if (absl::Status status = CheckExpertCounts(natives); !status.ok()) return status;
    return natives;
  }

  const std::vector<Candidate>& candidates() const { return candidates_; }

 private:
  absl::Status Sort(const TensorSpec& hf) {
    if (IsNativeName(hf.name) && !(family_.rules.empty() && family_.renames.empty())) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", hf.ToString(), " has the name of a native tensor; is the file native already?"));
    }
    absl::StatusOr<HfOrigin> origin = inverse_.OriginOf(hf);
    if (!origin.ok()) return origin.status();
    const auto [index, is_new] = index_.emplace(origin->native, candidates_.size());
    if (is_new) candidates_.push_back({origin->native, origin->rule, {}});
    Candidate& candidate = candidates_[index->second];
    if (candidate.rule != origin->rule) {
      return absl::InvalidArgumentError(absl::StrCat("tensors ", candidate.pieces.front().hf->ToString(), " and ",
                                                     hf.ToString(), " cannot both be part of the native tensor ",
                                                     Printable(candidate.name)));
    }
    candidate.pieces.push_back({&hf, origin->output, origin->expert});
    return absl::OkStatus();
  }

  absl::StatusOr<TensorSpec> SpecOf(const Candidate& candidate) const {
    const TensorSpec* first = nullptr;
    for (const RulePiece& piece : candidate.pieces) {
      if (!HasData(candidate, piece)) continue;
      if (first == nullptr) first = piece.hf;
      if (piece.hf->dtype == first->dtype) continue;
      return absl::InvalidArgumentError(absl::StrCat("tensors ", first->ToString(), " and ", piece.hf->ToString(),
                                                     " are part of one native tensor, ", Printable(candidate.name),
                                                     ", and must have one dtype"));
    }
    if (candidate.rule == nullptr) return TensorSpec{candidate.name, first->dtype, first->shape};
    if (first == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", candidate.pieces.front().hf->ToString(),
                                                     " is there, but nothing else of the native tensor ",
                                                     Printable(candidate.name)));
    }
    absl::StatusOr<Shape> shape = NativeShape(*candidate.rule->rule, candidate.pieces, family_.experts);
    if (!shape.ok()) return shape.status();
    return TensorSpec{candidate.name, first->dtype, *std::move(shape)};
  }

  // Where each expert is a tensor of its own, the last ones may be missing everywhere in a layer.
  absl::Status CheckExpertCounts(const std::vector<TensorSpec>& natives) const {
    const TensorSpec* first = nullptr;
    for (size_t i = 0; i < natives.size(); ++i) {
      if (candidates_[i].rule == nullptr || !candidates_[i].rule->rule->each_expert) continue;
      if (first == nullptr) first = &natives[i];
      if (natives[i].shape[0] == first->shape[0]) continue;
      return absl::InvalidArgumentError(absl::StrCat("the tensors of ", Printable(first->name), " are those of ",
                                                     first->shape[0], " experts, and of ", Printable(natives[i].name),
                                                     " those of ", natives[i].shape[0], ": some are missing"));
    }
    return absl::OkStatus();
  }

  const BoundFamily& family_;
  const FamilyInverse& inverse_;
  const absl::Span<const TensorSpec> hf_;
  std::vector<Candidate> candidates_;  // in the order of their first HF tensors
  absl::flat_hash_map<std::string, size_t> index_;
};

// The HF tensor that each of the plan's outputs is.
absl::StatusOr<std::vector<size_t>> Match(const VersionPlan& plan, absl::Span<const TensorSpec> hf) {
  absl::flat_hash_map<absl::string_view, size_t> index;
  for (size_t i = 0; i < hf.size(); ++i) index.emplace(hf[i].name, i);
  std::vector<size_t> matched;
  std::vector<bool> made(hf.size());
  for (const VersionPlan::Output& output : plan.outputs) {
    const TensorSpec& wanted = output.planned.hf;
    const TensorSpec& native = plan.native[output.native_index];
    const auto found = index.find(wanted.name);
    if (found == index.end()) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", wanted.ToString(), " is missing: the native tensor ",
                                                     native.ToString(), " consists of it, too"));
    }
    const TensorSpec& given = hf[found->second];
    if (given.shape != wanted.shape) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", given.ToString(), ": expected ", ToString(wanted.shape),
                                                     ", as part of the native tensor ", native.ToString()));
    }
    if (output.planned.padded_dimension.has_value()) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", given.ToString(), " is padded, and does not tell how much of it are values"));
    }
    made[found->second] = true;
    matched.push_back(found->second);
  }
  for (size_t i = 0; i < hf.size(); ++i) {
    if (made[i]) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", hf[i].ToString(), ": the native tensors that the others tell of do not make it"));
  }
  return matched;
}

// Every element of a native tensor must be in some HF tensor.
absl::Status CheckCovered(const VersionPlan& plan) {
  for (size_t i = 0; i < plan.native.size(); ++i) {
    std::set<Box> boxes;
    for (const size_t output : plan.outputs_of_native[i]) {
      const PlannedOutput& planned = plan.outputs[output].planned;
      if (planned.transform != Transform::kOnes) boxes.insert(planned.box.value_or(WholeBox(plan.native[i].shape)));
    }
    int64_t elements = 0;
    for (const Box& box : boxes) elements += ElementCount(box);
    if (elements >= ElementCount(WholeBox(plan.native[i].shape))) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("native tensor ", plan.native[i].ToString(), " would be more than its HF tensors have"));
  }
  return absl::OkStatus();
}

// That of the HF tensors, or F32 where the family always makes F32 of it: the trainer has it so, too.
DType ForcedDType(const VersionPlan& plan, size_t native) {
  const auto& outputs = plan.outputs_of_native[native];
  return outputs.empty() ? plan.native[native].dtype : plan.outputs[outputs.front()].planned.hf.dtype;
}

}  // namespace

absl::StatusOr<FromHfPlan> PlanFromHf(absl::string_view adapter, const AdapterOptions& options,
                                      absl::Span<const TensorSpec> hf, std::optional<DType> experts_dtype) {
  if (adapter == kAutoAdapter) {
    return absl::InvalidArgumentError("adapter \"auto\" knows families by their native names; name the adapter");
  }
  const absl::StatusOr<std::shared_ptr<const Family>> family = FindFamily(adapter);
  if (!family.ok()) return family.status();
  return PlanFromHf(*family, options, hf, experts_dtype);
}

absl::StatusOr<FromHfPlan> PlanFromHf(const std::shared_ptr<const Family>& family, const AdapterOptions& options,
                                      absl::Span<const TensorSpec> hf, std::optional<DType> experts_dtype) {
  if (experts_dtype.has_value()) {
    if (absl::Status status = CheckCastTarget(*experts_dtype); !status.ok()) return status;
  }
  const absl::StatusOr<BoundFamily> bound = Bind(*family, options);
  if (!bound.ok()) return bound.status();
  const absl::StatusOr<FamilyInverse> inverse = FamilyInverse::Make(*bound);
  if (!inverse.ok()) return inverse.status();
  Planner planner(*bound, *inverse, hf);
  absl::StatusOr<std::vector<TensorSpec>> natives = planner.Natives();
  if (!natives.ok()) return natives.status();
  const absl::StatusOr<std::shared_ptr<const Adapter>> forward = MakeAdapter(family, options);
  if (!forward.ok()) return forward.status();
  FromHfPlan plan;
  absl::StatusOr<VersionPlan> version = PlanVersion(**forward, *std::move(natives), {});
  if (!version.ok()) return version.status();
  plan.forward = *std::move(version);
  absl::StatusOr<std::vector<size_t>> matched = Match(plan.forward, hf);
  if (!matched.ok()) return matched.status();
  plan.hf = *std::move(matched);
  if (absl::Status status = CheckCovered(plan.forward); !status.ok()) return status;
  for (size_t i = 0; i < plan.forward.native.size(); ++i) {
    const TensorSpec& native = plan.forward.native[i];
    const BoundRule* const rule = planner.candidates()[i].rule;
    const bool casts = experts_dtype.has_value() && rule != nullptr && rule->rule->experts && IsCastable(native.dtype);
    plan.dtypes.push_back(casts ? *experts_dtype : ForcedDType(plan.forward, i));
    if (rule != nullptr && rule->rule->each_expert && !bound->experts.has_value()) {
      plan.counted_experts = native.shape[0];
    }
    plan.changes_nothing &= rule == nullptr && native.name == planner.candidates()[i].pieces.front().hf->name;
  }
  return plan;
}

}  // namespace refit
