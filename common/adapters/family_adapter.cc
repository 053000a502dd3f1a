#include "common/adapters/family_adapter.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/adapters/family_binding.h"
#include "common/adapters/family_names.h"
#include "common/adapters/prefix_check.h"
#include "common/adapters/size_expression.h"
#include "common/tensor/kernels.h"

namespace refit {
namespace {

// No model has more experts. A declaration is small, whatever dimensions it claims.
constexpr int64_t kMaxExperts = 1 << 16;

absl::Status Invalid(const TensorSpec& native, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("tensor ", native.ToString(), ": ", what));
}

// Plans the outputs that one rule makes of one native tensor.
class RulePlan {
 public:
  RulePlan(const BoundFamily& family, const BoundRule& rule, const TensorSpec& native)
      : family_(family), rule_(*rule.rule), bound_(rule), native_(native) {}

  absl::StatusOr<std::vector<PlannedOutput>> Run(const NameFinder::Found& found) {
    if (absl::Status status = CheckSizes(); !status.ok()) return status;
    std::vector<PlannedOutput> made;
    for (const BoundOutput& output : bound_.outputs) {
      absl::StatusOr<PlannedOutput> next = MakeOutput(output, found);
      if (!next.ok()) return next.status();
      made.push_back(*std::move(next));
    }
    return rule_.each_expert ? ForEachExpert(made) : made;
  }

 private:
  absl::Status CheckSizes() const {
    if (rule_.rank.has_value() && native_.shape.size() != *rule_.rank) {
      return Invalid(native_, absl::StrCat("expected ", *rule_.rank, " dimensions"));
    }
    if (HasExperts() && family_.experts.has_value() && native_.shape[0] != *family_.experts) {
      return Invalid(native_, absl::StrCat("expected ", *family_.experts, " experts in dimension 0"));
    }
    if (rule_.each_expert && (native_.shape.empty() || native_.shape[0] > kMaxExperts)) {
      return Invalid(native_, absl::StrCat("at most ", kMaxExperts, " experts are expected in dimension 0"));
    }
    if (!rule_.width.has_value()) return absl::OkStatus();
    const absl::StatusOr<int64_t> width = EvaluateSize(*rule_.width, native_.shape);
    if (!width.ok()) return Invalid(native_, width.status().message());
    if (!family_.expert_width.has_value() || *width == *family_.expert_width) return absl::OkStatus();
    return Invalid(native_, absl::StrCat("its experts are ", *width, " wide, expected ", *family_.expert_width));
  }

  // Whether dimension 0 counts experts. A matrix may be a single expert's.
  bool HasExperts() const { return rule_.experts && (rule_.rank.has_value() || native_.shape.size() > 2); }

  absl::StatusOr<PlannedOutput> MakeOutput(const BoundOutput& output, const NameFinder::Found& found) const {
    absl::StatusOr<std::string> name = OutputName(bound_, output, found, native_.name);
    if (!name.ok()) return name.status();
    PlannedOutput made;
    made.hf = {*std::move(name), native_.dtype, native_.shape};
    made.transform = output.rule->transform;
    made.native_experts = HasExperts();
    made.experts = HasExperts() && made.transform != Transform::kOnes && output.rule->shape.empty();
    if (output.rule->slice.has_value()) {
      absl::StatusOr<Box> box = BoxOf(*output.rule->slice);
      if (!box.ok()) return box.status();
      made.hf.shape = box->sizes;
      made.box = *std::move(box);
    }
    if (absl::Status status = ApplyTransform(made); !status.ok()) return status;
    if (absl::Status status = ApplyShape(output.rule->shape, made); !status.ok()) return status;
    if (absl::Status status = ApplyPadding(output.rule->pad, made); !status.ok()) return status;
    return made;
  }

  absl::StatusOr<Box> BoxOf(const SliceRule& slice) const {
    const absl::StatusOr<int64_t> begin = EvaluateSize(slice.begin, native_.shape);
    if (!begin.ok()) return Invalid(native_, begin.status().message());
    const absl::StatusOr<int64_t> size = EvaluateSize(slice.size, native_.shape);
    if (!size.ok()) return Invalid(native_, size.status().message());
    if (slice.dimension >= native_.shape.size()) {
      return Invalid(native_, absl::StrCat("it has no dimension ", slice.dimension));
    }
    Box box = WholeBox(native_.shape);
    box.offsets[slice.dimension] = *begin;
    box.sizes[slice.dimension] = *size;
    if (absl::Status status = Validate(box, native_.shape); !status.ok()) return Invalid(native_, status.message());
    return box;
  }

  absl::Status ApplyTransform(PlannedOutput& made) const {
    if (made.transform != Transform::kTransposeLastTwo && made.transform != Transform::kFirstToLast) {
      return absl::OkStatus();
    }
    Shape& shape = made.hf.shape;
    if (!CanTranspose(native_.dtype, native_.dtype)) {
      return Invalid(native_, absl::StrCat("packed values cannot be transposed; expected one value an element (the "
                                           "adapter \"identity\" passes it)"));
    }
    if (shape.size() < 2) return Invalid(native_, "expected at least 2 dimensions");
    if (made.transform == Transform::kTransposeLastTwo) {
      std::swap(shape[shape.size() - 1], shape[shape.size() - 2]);
    } else {
      std::rotate(shape.begin(), shape.begin() + 1, shape.end());
    }
    return absl::OkStatus();
  }

  absl::Status ApplyShape(const std::vector<SizeExpression>& sizes, PlannedOutput& made) const {
    if (sizes.empty()) return absl::OkStatus();
    Shape shape;
    for (const SizeExpression& size : sizes) {
      const absl::StatusOr<int64_t> value = EvaluateSize(size, native_.shape);
      if (!value.ok()) return Invalid(native_, value.status().message());
      shape.push_back(*value);
    }
    const absl::StatusOr<int64_t> had = ElementCount(made.hf.shape);
    const absl::StatusOr<int64_t> has = ElementCount(shape);
    if (made.transform != Transform::kOnes && (!had.ok() || !has.ok() || *had != *has)) {
      return Invalid(native_, absl::StrCat(ToString(made.hf.shape), " cannot become ", ToString(shape)));
    }
    made.hf.shape = std::move(shape);
    return absl::OkStatus();
  }

  absl::Status ApplyPadding(const std::optional<PadRule>& pad, PlannedOutput& made) const {
    if (!pad.has_value()) return absl::OkStatus();
    if (pad->dimension >= made.hf.shape.size()) {
      return Invalid(native_, absl::StrCat("it has no dimension ", pad->dimension, " to be padded"));
    }
    if (!CanTranspose(native_.dtype, native_.dtype)) return Invalid(native_, "packed values cannot be padded");
    int64_t& size = made.hf.shape[pad->dimension];
    const int64_t rest = size % pad->multiple;
    if (rest == 0) return absl::OkStatus();
    if (size > INT64_MAX - pad->multiple) return Invalid(native_, "it is too large to be padded");
    size += pad->multiple - rest;
    made.padded_dimension = pad->dimension;
    return absl::OkStatus();
  }

  // The outputs, of each expert in turn.
  std::vector<PlannedOutput> ForEachExpert(const std::vector<PlannedOutput>& made) const {
    const int64_t count = native_.shape[0];
    std::vector<ExpertTemplate> names;
    names.reserve(made.size());
    for (const PlannedOutput& output : made) names.emplace_back(output.hf.name);
    std::vector<PlannedOutput> outputs;
    outputs.reserve(made.size() * static_cast<size_t>(count));
    for (int64_t expert = 0; expert < count; ++expert) {
      for (size_t i = 0; i < made.size(); ++i) {
        PlannedOutput& output = outputs.emplace_back(made[i]);
        output.hf.name = names[i].Of(expert);
        output.hf.shape.erase(output.hf.shape.begin());
        if (!output.box.has_value()) output.box = WholeBox(native_.shape);
        output.box->offsets[0] = expert;
        output.box->sizes[0] = 1;
        output.experts = false;
        output.expert = ExpertPlace{expert, count};
      }
    }
    return outputs;
  }

  const BoundFamily& family_;
  const FamilyRule& rule_;
  const BoundRule& bound_;
  const TensorSpec& native_;
};

class FamilyAdapter final : public Adapter {
 public:
  FamilyAdapter(std::shared_ptr<const Family> family, BoundFamily bound, std::shared_ptr<const PythonRegex> f32,
                std::shared_ptr<const PythonRegex> keep)
      : family_(std::move(family)), bound_(std::move(bound)), f32_(std::move(f32)), keep_(std::move(keep)) {}

  absl::string_view name() const override { return family_->name; }
  bool has_rules() const override { return !family_->rules.empty() || !family_->renames.empty(); }

  absl::StatusOr<std::vector<PlannedOutput>> PlanTensor(const TensorSpec& native,
                                                        const ConvertOptions& options) const override {
    if (family_->exclude == Family::ExcludeStage::kNative && Excludes(native.name, options)) {
      return std::vector<PlannedOutput>();
    }
    absl::StatusOr<std::vector<PlannedOutput>> outputs = ApplyRules(native);
    if (!outputs.ok()) return outputs;
    for (PlannedOutput& output : *outputs) {
      output.hf.name = Renamed(bound_, std::move(output.hf.name));
      output.hf.dtype = DTypeOf(native, output.hf.name, options);
    }
    if (family_->exclude == Family::ExcludeStage::kHf) {
      outputs->erase(std::remove_if(outputs->begin(), outputs->end(),
                                    [&](const PlannedOutput& output) { return Excludes(output.hf.name, options); }),
                     outputs->end());
    }
    return outputs;
  }

  absl::Status CheckVersion(const VersionPlan& plan) const override { return CheckPrefixes(*family_, bound_, plan); }

 private:
  bool Excludes(absl::string_view name, const ConvertOptions& options) const {
    if (options.exclude == nullptr || options.exclude->pattern().empty()) return false;
    return family_->exclude_searches ? options.exclude->Search(name) : options.exclude->Match(name);
  }

  absl::StatusOr<std::vector<PlannedOutput>> ApplyRules(const TensorSpec& native) const {
    const BoundRule* const rule = RuleFor(bound_, native.name, native.shape.size());
    if (rule != nullptr) return RulePlan(bound_, *rule, native).Run(*rule->when.back().Find(native.name));
    return std::vector<PlannedOutput>{{native, Transform::kPass}};
  }

  DType DTypeOf(const TensorSpec& native, absl::string_view hf, const ConvertOptions& options) const {
    if (!IsCastable(native.dtype)) return native.dtype;
    const DType own = f32_ != nullptr && f32_->Search(hf) ? DType::kF32 : native.dtype;
    const bool keeps = options.keep_family_dtypes && keep_ != nullptr && keep_->Search(hf);
    return options.dtype.has_value() && !keeps && !options.KeepsDType(native.name) ? *options.dtype : own;
  }

  const std::shared_ptr<const Family> family_;
  const BoundFamily bound_;
  const std::shared_ptr<const PythonRegex> f32_;
  const std::shared_ptr<const PythonRegex> keep_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<const Adapter>> MakeAdapter(std::shared_ptr<const Family> family,
                                                           const AdapterOptions& options) {
  absl::StatusOr<BoundFamily> bound = Bind(*family, options);
  if (!bound.ok()) return bound.status();
  absl::StatusOr<std::shared_ptr<const PythonRegex>> f32 = AnyOf(family->f32);
  if (!f32.ok()) return f32.status();
  absl::StatusOr<std::shared_ptr<const PythonRegex>> keep = AnyOf(family->keep_dtype);
  if (!keep.ok()) return keep.status();
  return std::make_shared<const FamilyAdapter>(std::move(family), *std::move(bound), *std::move(f32), *std::move(keep));
}

}  // namespace refit
