#include "client/cli/options/native_options.h"

#include <string>
#include <vector>

#include "client/cli/options/options.h"
#include "common/adapters/python_regex.h"

namespace refit::cli {
namespace {

const char kSourceGroup[] = "Native tensors";
const char kConversionGroup[] = "Conversion";

const std::vector<DType> kFloats = {DType::kF64, DType::kF32, DType::kF16, DType::kBF16};

void AddConversionOptions(CLI::App* command, NativeOptions& options) {
  AddAdapterOptions(command, options.adapter, kConversionGroup);
  AddDTypeOption(
      command, "--dtype", kFloats, [&options](DType dtype) { options.dtype = dtype; },
      "Cast floating-point tensors to it after conversion (default: no cast)")
      ->group(kConversionGroup);
  command
      ->add_option("--keep-dtype-regex", options.keep_dtype_regex,
                   "Do not cast native tensors whose name matches from its beginning, as Python's re.match, such as "
                   "'.*(e_score_correction_bias|A_log)'")
      ->type_name("RX")
      ->group(kConversionGroup);
  command
      ->add_flag("--cast-family-dtypes", options.cast_family_dtypes,
                 "Also cast what the family would keep, such as a router's correction bias (refit adapters NAME)")
      ->group(kConversionGroup);
  command
      ->add_option("--exclude-key-regex", options.exclude_key_regex,
                   "Leave out tensors whose name, native or Hugging Face's as the family has it, matches from its "
                   "beginning, as Python's re.match, such as '.*_extra_state.*'")
      ->type_name("RX")
      ->group(kConversionGroup);
}

}  // namespace

absl::StatusOr<std::shared_ptr<const NativeSource>> NativeOptions::Open() const {
  if (!path.empty()) {
    const absl::StatusOr<CheckpointOptions> reading = ReadingOptions();
    if (!reading.ok()) return reading.status();
    return OpenCheckpointSource(path, *reading);
  }
  SyntheticOptions wanted;
  wanted.model = synthetic;
  wanted.layers = layers;
  wanted.seed = seed;
  wanted.step = step;
  wanted.change = change;
  wanted.dtype = synthetic_dtype;
  return OpenSyntheticSource(wanted);
}

absl::StatusOr<CheckpointOptions> NativeOptions::ReadingOptions() const {
  absl::StatusOr<NameFilter> excluded = PythonRegex::Matcher(exclude_key_regex);
  if (!excluded.ok()) return excluded.status();
  return CheckpointOptions{.excluded = *std::move(excluded)};
}

void AddNativeOptions(CLI::App* command, NativeOptions& options, const std::string& path_option,
                      const std::string& synthetic_option) {
  CLI::Option* path = command
                          ->add_option(path_option, options.path,
                                       "Safetensors file, or checkpoint folder: with model.safetensors.index.json, or "
                                       "with the shards of torch.distributed.checkpoint")
                          ->type_name("FILE|DIR")
                          ->group(kSourceGroup);
  CLI::Option* synthetic =
      command
          ->add_option(synthetic_option, options.synthetic,
                       "Values made on the fly: gemma4_26b_a4b (53.1 GB), gemma4_tiny, qwen3_30b_a3b (61.1 GB), "
                       "deepseek_v3_1layer (26.7 GB) or gpt_oss_20b (41.8 GB); --adapter auto knows their families")
          ->type_name("MODEL")
          ->group(kSourceGroup)
          ->excludes(path);
  command->add_option("--layers", options.layers, "Synthetic: only the first N layers of the language model")
      ->check(AtLeast(0))
      ->type_name("N")
      ->needs(synthetic)
      ->group(kSourceGroup);
  command->add_option("--seed", options.seed, "Synthetic: other values for every seed; same ones on every machine")
      ->type_name("S")
      ->capture_default_str()
      ->needs(synthetic)
      ->group(kSourceGroup);
  CLI::Option* step =
      command
          ->add_option("--step", options.step,
                       "Synthetic: values after K training steps. At each, --change of the elements of every F64, F32, "
                       "F16 and BF16 tensor moves by 1 or 2 units in the last place, up or down; other types stay")
          ->check(CLI::Range(int64_t{0}, int64_t{kMostSyntheticSteps}))
          ->type_name("K")
          ->capture_default_str()
          ->needs(synthetic)
          ->group(kSourceGroup);
  command
      ->add_option("--change", options.change,
                   "Synthetic: fraction of the elements that change at each step, 0 to 1: 0.01 is 1 %")
      ->check(Fraction())
      ->type_name("P")
      ->capture_default_str()
      ->needs(step)
      ->group(kSourceGroup);
  AddDTypeOption(
      command, "--synthetic-dtype", kFloats, [&options](DType dtype) { options.synthetic_dtype = dtype; },
      "Synthetic: element type of the floating-point tensors, such as F32 for a trainer with F32 masters "
      "(default: the model's, BF16)")
      ->needs(synthetic)
      ->group(kSourceGroup);
  AddConversionOptions(command, options);
}

}  // namespace refit::cli
