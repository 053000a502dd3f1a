#include "common/adapters/gemma4_moe_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "common/adapters/adapter_registry.h"

namespace refit {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

TensorSpec Spec(std::string name, Shape shape = {4, 3, 2}, DType dtype = DType::kBF16) {
  return {std::move(name), dtype, std::move(shape)};
}

ConvertOptions Exclude(const char* pattern) {
  ConvertOptions options;
  options.exclude = *PythonRegex::Compile(pattern);
  return options;
}

ConvertOptions Cast(DType dtype) {
  ConvertOptions options;
  options.dtype = dtype;
  return options;
}

absl::StatusOr<std::vector<PlannedOutput>> Plan(const TensorSpec& native, const ConvertOptions& options = {}) {
  return FindAdapter("gemma4_moe").value()->PlanTensor(native, options);
}

std::vector<std::string> PlannedNames(const std::string& name, const ConvertOptions& options = {}) {
  std::vector<std::string> names;
  const std::vector<PlannedOutput> outputs = Plan(Spec(name), options).value();
  names.reserve(outputs.size());
  for (const PlannedOutput& output : outputs) names.push_back(output.hf.name);
  return names;
}

std::string Message(const absl::Status& status) { return std::string(status.message()); }

// --- 1. exclude
// -------------------------------------------------------------------------------------------------------

TEST(Gemma4MoePlan, ExcludeMatchesTheNativeNameBeforeAnythingElse) {
  EXPECT_THAT(PlannedNames("m.layers.0.moe.experts.down_projs", Exclude(".*moe\\.experts")), IsEmpty());
  EXPECT_THAT(Plan(Spec("nolayer.moe.experts.down_projs", {4}), Exclude("nolayer")).value(), IsEmpty());
}

TEST(Gemma4MoePlan, ExcludeIsAnchoredAtTheStartOnly) {
  EXPECT_THAT(PlannedNames("model.layers.0.x", Exclude("layers")), ElementsAre("model.layers.0.x"));
  EXPECT_THAT(PlannedNames("model.layers.0.x", Exclude("model\\.layers")), IsEmpty());
}

TEST(Gemma4MoePlan, ExcludeNeverTestsEmittedNames) {
  EXPECT_THAT(PlannedNames("layers.0.moe.experts.down_projs", Exclude(".*per_expert_scale")),
              ElementsAre("layers.0.experts.down_proj", "layers.0.router.per_expert_scale"));
  EXPECT_THAT(PlannedNames("layers.0.moe.gate.scale", Exclude(".*router")), ElementsAre("layers.0.router.scale"));
}

TEST(Gemma4MoePlan, AnEmptyRegexExcludesNothing) { EXPECT_THAT(PlannedNames("a.b", Exclude("")), ElementsAre("a.b")); }

TEST(Gemma4MoePlan, ExtraStateIsExcludedAsTrainersDoIt) {
  EXPECT_THAT(PlannedNames("model.layers.0.moe.experts._extra_state0", Exclude(".*_extra_state.*")), IsEmpty());
}

// --- 2. router
// --------------------------------------------------------------------------------------------------------

TEST(Gemma4MoePlan, RouterIsRenamedAndPassed) {
  const std::vector<PlannedOutput> outputs = Plan(Spec("model.language_model.layers.12.moe.gate.proj.weight")).value();
  ASSERT_EQ(outputs.size(), 1u);
  EXPECT_EQ(outputs[0].hf, Spec("model.language_model.layers.12.router.proj.weight"));
  EXPECT_EQ(outputs[0].transform, Transform::kPass);
  EXPECT_THAT(PlannedNames("layers.0.moe.gate.scale"), ElementsAre("layers.0.router.scale"));
}

TEST(Gemma4MoePlan, EveryOccurrenceOfTheRouterIsReplaced) {
  EXPECT_THAT(PlannedNames("layers.1.moe.gate.scale.layers.1.moe.gate.scale"),
              ElementsAre("layers.1.router.scale.layers.1.router.scale"));
  EXPECT_THAT(PlannedNames("layers.2.moe.gate.scale.layers.1.moe.gate.scale"),
              ElementsAre("layers.2.moe.gate.scale.layers.1.router.scale"));
}

TEST(Gemma4MoePlan, OtherGateNamesPassThrough) {
  for (const char* name : {"layers.0.moe.gate.bias", "layers.0.moe.gate.scale_x", "layers.0.moe.gate.proj.weight.foo",
                           "layers.7xmoe.gate.scale", "layers.x.moe.gate.scale", "moe.gate.scale"}) {
    EXPECT_THAT(PlannedNames(name), ElementsAre(name));
  }
}

TEST(Gemma4MoePlan, RouterIsSearchedForAnywhere) {
  EXPECT_THAT(PlannedNames("sublayers.3.moe.gate.scale"), ElementsAre("sublayers.3.router.scale"));
}

TEST(Gemma4MoePlan, RouterDigitsAreUnicode) {
  EXPECT_THAT(PlannedNames("layers.\u0663.moe.gate.scale"), ElementsAre("layers.\u0663.router.scale"));
  EXPECT_THAT(PlannedNames("layers.\u00b2.moe.gate.scale"), ElementsAre("layers.\u00b2.moe.gate.scale"));
}

TEST(Gemma4MoePlan, RouterMayEndBeforeATrailingNewline) {
  EXPECT_THAT(PlannedNames("layers.3.moe.gate.scale\n"), ElementsAre("layers.3.router.scale\n"));
  EXPECT_THAT(PlannedNames("layers.3.moe.gate.scale\n\n"), ElementsAre("layers.3.moe.gate.scale\n\n"));
}

TEST(Gemma4MoePlan, RouterIsTriedBeforeExperts) {
  EXPECT_THAT(PlannedNames("a.moe.experts.down_projs.layers.0.moe.gate.scale"),
              ElementsAre("a.moe.experts.down_projs.layers.0.router.scale"));
}

// --- 3. gate_and_up_projs
// ---------------------------------------------------------------------------------------------

TEST(Gemma4MoePlan, GateAndUpIsRenamedAndTransposed) {
  const std::vector<PlannedOutput> outputs = Plan(Spec("m.layers.0.moe.experts.gate_and_up_projs")).value();
  ASSERT_EQ(outputs.size(), 1u);
  EXPECT_EQ(outputs[0].hf, Spec("m.layers.0.experts.gate_up_proj", {4, 2, 3}));
  EXPECT_EQ(outputs[0].transform, Transform::kTransposeLastTwo);
}

TEST(Gemma4MoePlan, GateAndUpIsASubstring) {
  EXPECT_THAT(PlannedNames("layers.2.moe.experts.gate_and_up_projs.lora_A.weight"),
              ElementsAre("layers.2.experts.gate_up_proj.lora_A.weight"));
  EXPECT_THAT(PlannedNames("a.moe.experts.gate_and_up_projs.moe.experts.gate_and_up_projs"),
              ElementsAre("a.experts.gate_up_proj.experts.gate_up_proj"));
  EXPECT_THAT(PlannedNames("moe.experts.gate_and_up_projs"), ElementsAre("moe.experts.gate_and_up_projs"));
}

TEST(Gemma4MoePlan, GateAndUpNeedsNoLayer) {
  EXPECT_THAT(PlannedNames("x.moe.experts.gate_and_up_projs"), ElementsAre("x.experts.gate_up_proj"));
}

TEST(Gemma4MoePlan, GateAndUpComesBeforeDown) {
  EXPECT_THAT(PlannedNames("a.moe.experts.down_projs.moe.experts.gate_and_up_projs"),
              ElementsAre("a.moe.experts.down_projs.experts.gate_up_proj"));
}

TEST(Gemma4MoePlan, ExpertTensorsOfAnyRankFromTwoOn) {
  EXPECT_EQ(Plan(Spec("x.moe.experts.gate_and_up_projs", {3, 2})).value()[0].hf.shape, (Shape{2, 3}));
  EXPECT_EQ(Plan(Spec("x.moe.experts.gate_and_up_projs", {2, 3, 4, 5})).value()[0].hf.shape, (Shape{2, 3, 5, 4}));
  EXPECT_EQ(Plan(Spec("x.moe.experts.gate_and_up_projs", {2, 0, 4})).value()[0].hf.shape, (Shape{2, 4, 0}));
}

TEST(Gemma4MoePlan, ExpertTensorsBelowRankTwoAreErrors) {
  for (const char* name : {"layers.0.moe.experts.gate_and_up_projs", "layers.0.moe.experts.down_projs"}) {
    for (const Shape& shape : {Shape{}, Shape{5}}) {
      const absl::Status status = Plan(Spec(name, shape)).status();
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
      EXPECT_THAT(Message(status), AllOf(HasSubstr(name), HasSubstr(ToString(shape)), HasSubstr("2 dimensions")));
    }
  }
}

// --- 4. down_projs
// ----------------------------------------------------------------------------------------------------

TEST(Gemma4MoePlan, DownIsTransposedAndItsScaleFollows) {
  const std::vector<PlannedOutput> outputs = Plan(Spec("m.layers.0.moe.experts.down_projs")).value();
  ASSERT_EQ(outputs.size(), 2u);
  EXPECT_EQ(outputs[0].hf, Spec("m.layers.0.experts.down_proj", {4, 2, 3}));
  EXPECT_EQ(outputs[0].transform, Transform::kTransposeLastTwo);
  EXPECT_EQ(outputs[1].hf, Spec("m.layers.0.router.per_expert_scale", {4}));
  EXPECT_EQ(outputs[1].transform, Transform::kOnes);
}

TEST(Gemma4MoePlan, TheScaleBelongsToTheLastLayerInTheName) {
  EXPECT_THAT(PlannedNames("a.layers.3.b.layers.4.moe.experts.down_projs"),
              ElementsAre("a.layers.3.b.layers.4.experts.down_proj", "a.layers.3.b.layers.4.router.per_expert_scale"));
  EXPECT_THAT(PlannedNames("layers.3.moe.experts.down_projs.layers.5.x"),
              ElementsAre("layers.3.experts.down_proj.layers.5.x",
                          "layers.3.moe.experts.down_projs.layers.5.router.per_expert_scale"));
}

TEST(Gemma4MoePlan, TheScalesPrefixEndsAtANewline) {
  EXPECT_THAT(PlannedNames("a\nlayers.4.moe.experts.down_projs"),
              ElementsAre("a\nlayers.4.experts.down_proj", "layers.4.router.per_expert_scale"));
}

TEST(Gemma4MoePlan, TheScaleHasTheTensorsDType) {
  EXPECT_EQ(Plan(Spec("layers.0.moe.experts.down_projs", {4, 3, 2}, DType::kF16)).value()[1].hf.dtype, DType::kF16);
  EXPECT_EQ(Plan(Spec("layers.0.moe.experts.down_projs", {4, 3, 2}, DType::kI8)).value()[1].hf.dtype, DType::kI8);
}

TEST(Gemma4MoePlan, TheScaleHasTheFirstDimensionWhateverTheRank) {
  EXPECT_EQ(Plan(Spec("layers.0.moe.experts.down_projs", {7, 3})).value()[1].hf.shape, (Shape{7}));
  EXPECT_EQ(Plan(Spec("layers.0.moe.experts.down_projs", {0, 3, 2})).value()[1].hf.shape, (Shape{0}));
}

TEST(Gemma4MoePlan, DownWithoutALayerIsAnError) {
  for (const char* name : {"nolayer.moe.experts.down_projs", "layers.moe.experts.down_projs",
                           "layers.x.moe.experts.down_projs", "a.moe.experts.down_projs.layers.3"}) {
    const absl::Status status = Plan(Spec(name)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_THAT(Message(status), AllOf(HasSubstr(name), HasSubstr("layers.N.")));
  }
}

// --- 5. everything else, and the cast
// ----------------------------------------------------------------------------------

TEST(Gemma4MoePlan, EverythingElsePasses) {
  for (DType dtype : kAllDTypes) {
    const TensorSpec spec = Spec("model.vision_tower.std_bias", {}, dtype);
    const std::vector<PlannedOutput> outputs = Plan(spec).value();
    ASSERT_EQ(outputs.size(), 1u);
    EXPECT_EQ(outputs[0].hf, spec);
    EXPECT_EQ(outputs[0].transform, Transform::kPass);
  }
}

TEST(Gemma4MoePlan, OnlyCastableTensorsAreCast) {
  for (DType dtype : kAllDTypes) {
    const DType expected = IsCastable(dtype) ? DType::kBF16 : dtype;
    EXPECT_EQ(Plan(Spec("x", {1}, dtype), Cast(DType::kBF16)).value()[0].hf.dtype, expected);
    if (PackedBits(dtype) != 0) continue;
    const std::vector<PlannedOutput> outputs =
        Plan(Spec("layers.0.moe.experts.down_projs", {4, 3, 2}, dtype), Cast(DType::kBF16)).value();
    for (const PlannedOutput& output : outputs) {
      EXPECT_EQ(output.hf.dtype, expected) << output.hf.name;
    }
  }
}

TEST(Gemma4MoePlan, PackedExpertsAreRefused) {
  const absl::Status status = Plan(Spec("layers.0.moe.experts.down_projs", {4, 3, 2}, DType::kF4Packed)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(status), AllOf(HasSubstr("layers.0.moe.experts.down_projs"), HasSubstr("F4_PACKED"),
                                     HasSubstr("cannot be transposed"), HasSubstr("identity")));
}

// --- adapters and versions
// ---------------------------------------------------------------------------------------------

TEST(Adapters, AreFoundByName) {
  EXPECT_EQ(FindAdapter("gemma4_moe").value()->name(), "gemma4_moe");
  EXPECT_EQ(FindAdapter("").value()->name(), "gemma4_moe");
  EXPECT_EQ(FindAdapter("identity").value()->name(), "identity");
  EXPECT_THAT(AdapterNames(), ::testing::IsSupersetOf({"gemma4_moe", "identity", "qwen3_moe", "hf_v5_fused"}));
  const absl::Status status = FindAdapter("qwen").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Message(status), AllOf(HasSubstr("qwen"), HasSubstr("gemma4_moe"), HasSubstr("identity")));
}

TEST(Adapters, IdentityPassesEverything) {
  const auto identity = FindAdapter("identity").value();
  const TensorSpec spec = Spec("layers.0.moe.experts.down_projs");
  const std::vector<PlannedOutput> outputs = identity->PlanTensor(spec, {}).value();
  ASSERT_EQ(outputs.size(), 1u);
  EXPECT_EQ(outputs[0].hf, spec);
  EXPECT_EQ(identity->PlanTensor(spec, Cast(DType::kF32)).value()[0].hf.dtype, DType::kF32);
  EXPECT_THAT(identity->PlanTensor(spec, Exclude("layers")).value(), IsEmpty());
}

TEST(PlanVersion, KeepsOrderAndKnowsWhereOutputsComeFrom) {
  const std::vector<TensorSpec> native = {Spec("a"), Spec("layers.0.moe.experts.down_projs"), Spec("skip.me"),
                                          Spec("b")};
  const VersionPlan plan = PlanVersion(*FindAdapter("gemma4_moe").value(), native, Exclude("skip")).value();
  EXPECT_EQ(plan.native, native);
  ASSERT_EQ(plan.outputs.size(), 4u);
  EXPECT_EQ(plan.outputs[2].planned.hf.name, "layers.0.router.per_expert_scale");
  EXPECT_EQ(plan.outputs[2].native_index, 1u);
  EXPECT_EQ(plan.outputs[3].native_index, 3u);
  EXPECT_THAT(plan.outputs_of_native, ElementsAre(ElementsAre(0u), ElementsAre(1u, 2u), IsEmpty(), ElementsAre(3u)));
}

absl::Status PlanError(std::vector<TensorSpec> native, const ConvertOptions& options = {}) {
  return PlanVersion(*FindAdapter("gemma4_moe").value(), std::move(native), options).status();
}

TEST(PlanVersion, RefusesANameThatIsDeclaredTwice) {
  const absl::Status status = PlanError({Spec("a"), Spec("b"), Spec("a")});
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(status), AllOf(HasSubstr("tensor a"), HasSubstr("twice")));
}

// Its native bytes can be counted, those of the wider output cannot.
TEST(PlanVersion, RefusesAnOutputOfMoreBytesThanCanBeCounted) {
  ConvertOptions options;
  options.dtype = DType::kF64;
  const absl::StatusOr<VersionPlan> plan =
      PlanVersion(**FindAdapter("identity"), {{"huge", DType::kBF16, {int64_t{1} << 61}}}, options);
  EXPECT_EQ(plan.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(plan.status()), AllOf(HasSubstr("huge"), HasSubstr("bytes")));
}

TEST(PlanVersion, RefusesTwoOutputsOfOneNameAndNamesBothTensors) {
  const absl::Status status =
      PlanError({Spec("layers.0.router.per_expert_scale"), Spec("layers.0.moe.experts.down_projs")});
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(status),
              AllOf(HasSubstr("tensors layers.0.router.per_expert_scale and layers.0.moe.experts.down_projs"),
                    HasSubstr("both become layers.0.router.per_expert_scale")));
}

TEST(PlanVersion, RefusesBadSpecsAndOptions) {
  EXPECT_EQ(PlanError({Spec("")}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(PlanError({Spec("a\nb")}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(PlanError({Spec(std::string(2000, 'a'))}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(PlanError({Spec("a", {-1})}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(PlanError({Spec("a", {1LL << 40, 1LL << 40})}).code(), absl::StatusCode::kInvalidArgument);
  const absl::Status status = PlanError({Spec("a")}, Cast(DType::kI8));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(status), AllOf(HasSubstr("I8"), HasSubstr("BF16")));
}

TEST(PlanVersion, OfNothingIsEmpty) {
  EXPECT_THAT(PlanVersion(*FindAdapter("gemma4_moe").value(), {}, {}).value().outputs, IsEmpty());
}

// --- to_hf
// ------------------------------------------------------------------------------------------------------------

absl::StatusOr<VersionPlan> ToHf(std::vector<TensorSpec> native, const char* exclude = "", DType dtype = DType::kF32) {
  return PlanGemma4MoeToHf({128}, dtype, std::move(native), PythonRegex::Compile(exclude).value().get());
}

std::vector<std::string> ToHfNames(std::vector<TensorSpec> native, const char* exclude = "") {
  std::vector<std::string> names;
  const VersionPlan plan = ToHf(std::move(native), exclude).value();
  for (const VersionPlan::Output& output : plan.outputs) names.push_back(output.planned.hf.name);
  return names;
}

TEST(Gemma4MoeToHf, RebuildsExpertNamesFromTheFirstLayer) {
  EXPECT_THAT(
      ToHfNames({Spec("a.layers.3.b.layers.4.moe.experts.down_projs.x")}),
      ElementsAre("language_model.layers.3.experts.down_proj", "language_model.layers.3.router.per_expert_scale"));
  EXPECT_THAT(ToHfNames({Spec("x.moe.experts.gate_and_up_projs.layers.7")}),
              ElementsAre("language_model.layers.7.experts.gate_up_proj"));
}

TEST(Gemma4MoeToHf, AddsTheModelPrefixIfAnyKeyHasIt) {
  EXPECT_THAT(ToHfNames({Spec("layers.3.moe.experts.gate_and_up_projs"), Spec("model.norm.weight")}),
              ElementsAre("model.language_model.layers.3.experts.gate_up_proj", "model.norm.weight"));
}

TEST(Gemma4MoeToHf, RoutersKeepTheirPrefix) {
  EXPECT_THAT(ToHfNames({Spec("x.layers.3.moe.gate.scale"), Spec("model.y")}),
              ElementsAre("x.layers.3.router.scale", "model.y"));
}

TEST(Gemma4MoeToHf, TheScaleHasTheConfigsExpertsAndTheAdaptersDType) {
  const VersionPlan plan = ToHf({Spec("layers.0.moe.experts.down_projs")}, "", DType::kF16).value();
  EXPECT_EQ(plan.outputs[0].planned.hf.dtype, DType::kBF16);
  EXPECT_EQ(plan.outputs[1].planned.hf, Spec("language_model.layers.0.router.per_expert_scale", {128}, DType::kF16));
}

TEST(Gemma4MoeToHf, ExcludesByHfNameAtTheEnd) {
  const std::vector<TensorSpec> native = {Spec("layers.0.moe.experts.down_projs"), Spec("layers.0.moe.gate.scale")};
  EXPECT_THAT(ToHfNames(native, ".*per_expert_scale"),
              ElementsAre("language_model.layers.0.experts.down_proj", "layers.0.router.scale"));
  EXPECT_THAT(ToHfNames(native, ".*moe"), testing::SizeIs(3));
}

TEST(Gemma4MoeToHf, ExpertsWithoutALayerOrMatricesAreErrors) {
  for (const char* name : {"x.moe.experts.gate_and_up_projs", "x.moe.experts.down_projs"}) {
    EXPECT_THAT(Message(ToHf({Spec(name)}).status()), AllOf(HasSubstr(name), HasSubstr("layers.N")));
  }
  EXPECT_THAT(Message(ToHf({Spec("layers.0.moe.experts.down_projs", {3})}).status()), HasSubstr("[3]"));
}

TEST(Gemma4MoeToHf, TwoNativeNamesOnOneHfNameAreAnError) {
  const absl::Status status =
      ToHf({Spec("a.layers.0.moe.experts.gate_and_up_projs"), Spec("b.layers.0.moe.experts.gate_and_up_projs")})
          .status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(status), AllOf(HasSubstr("a.layers.0"), HasSubstr("b.layers.0"), HasSubstr("both become")));
}

TEST(Gemma4MoeToHf, RefusesAnAdapterDTypeThatIsNoFloat) {
  EXPECT_EQ(ToHf({}, "", DType::kI32).status().code(), absl::StatusCode::kInvalidArgument);
}

// --- from_hf
// ----------------------------------------------------------------------------------------------------------

std::vector<TensorSpec> HfLayer(const std::string& layer, const std::string& experts = ".experts.",
                                const std::string& scale = ".router.") {
  return {Spec(layer + scale + "per_expert_scale", {5}), Spec(layer + experts + "gate_up_proj", {5, 16, 24}),
          Spec(layer + experts + "down_proj", {5, 24, 8})};
}

absl::StatusOr<std::vector<NativeOutput>> FromHf(const std::vector<TensorSpec>& hf, const ExpertMesh& mesh = {}) {
  return PlanGemma4MoeFromHf({5}, DType::kF32, hf, mesh);
}

std::vector<TensorSpec> NativeSpecs(const std::vector<TensorSpec>& hf, const ExpertMesh& mesh = {}) {
  std::vector<TensorSpec> specs;
  const std::vector<NativeOutput> outputs = FromHf(hf, mesh).value();
  specs.reserve(outputs.size());
  for (const NativeOutput& output : outputs) specs.push_back(output.native);
  return specs;
}

TEST(Gemma4MoeFromHf, ReadsBothPublishedLayouts) {
  const std::vector<TensorSpec> expected = {
      Spec("language_model.layers.0.moe.experts.gate_and_up_projs", {5, 24, 16}, DType::kF32),
      Spec("language_model.layers.0.moe.experts.down_projs", {5, 8, 24}, DType::kF32)};
  EXPECT_EQ(NativeSpecs(HfLayer("layers.0")), expected);
  EXPECT_EQ(NativeSpecs(HfLayer("layers.0", ".moe.", ".moe.")), expected);
  EXPECT_EQ(NativeSpecs(HfLayer("layers.0", ".experts.", ".experts.")), expected);
}

TEST(Gemma4MoeFromHf, PassesFirstAndThenGivesLayersInOrderOfTheirComing) {
  std::vector<TensorSpec> hf = HfLayer("model.language_model.layers.1");
  hf.push_back(Spec("model.language_model.layers.0.router.scale"));
  const std::vector<TensorSpec> other = HfLayer("model.language_model.layers.0");
  hf.insert(hf.end(), other.begin(), other.end());
  hf.push_back(Spec("model.x"));
  std::vector<std::string> names;
  const std::vector<TensorSpec> specs = NativeSpecs(hf);
  names.reserve(specs.size());
  for (const TensorSpec& spec : specs) names.push_back(spec.name);
  EXPECT_THAT(names, ElementsAre("model.language_model.layers.0.moe.gate.scale", "model.x",
                                 "model.language_model.layers.1.moe.experts.gate_and_up_projs",
                                 "model.language_model.layers.1.moe.experts.down_projs",
                                 "model.language_model.layers.0.moe.experts.gate_and_up_projs",
                                 "model.language_model.layers.0.moe.experts.down_projs"));
}

TEST(Gemma4MoeFromHf, NamesWhatALayerMisses) {
  const std::vector<TensorSpec> layer = HfLayer("layers.0");
  const char* parts[] = {"per_expert_scale", "gate_up_proj", "down_proj"};
  for (size_t missing = 0; missing < layer.size(); ++missing) {
    std::vector<TensorSpec> hf = layer;
    hf.erase(hf.begin() + static_cast<std::ptrdiff_t>(missing));
    const absl::Status status = FromHf(hf).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(Message(status), StartsWith(std::string("Incomplete expert weights for layers.0: missing ") +
                                            parts[missing] + ". Available keys: "));
  }
}

TEST(Gemma4MoeFromHf, RefusesAnotherExpertCount) {
  const absl::Status status = PlanGemma4MoeFromHf({6}, DType::kF32, HfLayer("layers.0"), {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(status), AllOf(HasSubstr("layers.0"), HasSubstr("[5]"), HasSubstr("6 experts")));
}

TEST(Gemma4MoeFromHf, RefusesWrongRanksAndDTypes) {
  std::vector<TensorSpec> hf = HfLayer("layers.0");
  hf[1].shape = {5, 16};
  EXPECT_THAT(Message(FromHf(hf).status()), AllOf(HasSubstr("gate_up_proj"), HasSubstr("[5, 16]")));
  hf = HfLayer("layers.0");
  hf[2].dtype = DType::kF8E4M3;
  EXPECT_THAT(Message(FromHf(hf).status()), AllOf(HasSubstr("down_proj"), HasSubstr("F8_E4M3")));
}

TEST(Gemma4MoeFromHf, RefusesTwoTensorsThatBecomeOne) {
  std::vector<TensorSpec> hf = HfLayer("a.layers.0");
  hf.push_back(Spec("b.layers.0.experts.down_proj", {5, 24, 8}));
  EXPECT_THAT(Message(FromHf(hf).status()), AllOf(HasSubstr("a.layers.0"), HasSubstr("b.layers.0")));
  EXPECT_FALSE(FromHf({Spec("layers.0.router.scale"), Spec("layers.0.moe.gate.scale")}).ok());
  EXPECT_FALSE(FromHf({Spec("x"), Spec("x")}).ok());
}

TEST(Gemma4MoeFromHf, DividesDimensionOneAmongShardRanks) {
  const std::vector<TensorSpec> specs = NativeSpecs(HfLayer("layers.0"), {0, 1, 1, 4});
  EXPECT_EQ(specs[0].shape, (Shape{5, 6, 16}));
  EXPECT_EQ(specs[1].shape, (Shape{5, 2, 24}));
}

TEST(Gemma4MoeFromHf, ARemainderOfDimensionOneIsAnError) {
  const absl::Status status = FromHf(HfLayer("layers.0"), {0, 1, 0, 3}).status();  // 24 rows divide, 8 do not
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(status), AllOf(HasSubstr("down_proj"), HasSubstr("8"), HasSubstr("3 ep_shard ranks")));
}

TEST(Gemma4MoeFromHf, RefusesRanksOutsideOfTheMesh) {
  for (const ExpertMesh& mesh : {ExpertMesh{2, 2, 0, 1}, ExpertMesh{-1, 2, 0, 1}, ExpertMesh{0, 0, 0, 1},
                                 ExpertMesh{0, 1, 1, 1}, ExpertMesh{0, 1, -1, 2}, ExpertMesh{0, 1, 0, 0}}) {
    EXPECT_EQ(FromHf(HfLayer("layers.0"), mesh).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(ExpertsOfRank, CoverAllExpertsAndTheFirstRanksHoldOneMore) {
  for (int64_t experts : {0, 1, 5, 128}) {
    for (int64_t size : {1, 2, 3, 7, 200}) {
      int64_t next = 0;
      for (int64_t rank = 0; rank < size; ++rank) {
        const IndexRange range = ExpertsOfRank(experts, rank, size).value();
        EXPECT_EQ(range.begin, next);
        EXPECT_EQ(range.size(), experts / size + (rank < experts % size ? 1 : 0));
        next = range.end;
      }
      EXPECT_EQ(next, experts);
    }
  }
}

}  // namespace
}  // namespace refit
