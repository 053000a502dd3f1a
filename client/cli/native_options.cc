#include "client/cli/native_options.h"

#include <string>

#include "absl/strings/str_cat.h"

namespace refit::cli {
namespace {

const char kSourceGroup[] = "Native tensors";
const char kConversionGroup[] = "Conversion";

void AddDTypeOption(CLI::App* command, const std::string& name, std::optional<DType>& dtype, const std::string& help,
                    const std::string& group) {
  const auto parse = [&dtype](const std::string& text) {
    const absl::StatusOr<DType> parsed = ParseDType(text);
    if (!parsed.ok() || !IsCastable(*parsed)) return false;
    dtype = *parsed;
    return true;
  };
  command
      ->add_option_function<std::string>(
          name, [](const std::string&) {}, help)
      ->check(CLI::Validator(
          [parse](std::string& text) {
            return parse(text) ? std::string() : absl::StrCat("'", text, "' is none of F64, F32, F16, BF16");
          },
          ""))
      ->type_name("F64|F32|F16|BF16")
      ->group(group);
}

}  // namespace

absl::StatusOr<std::shared_ptr<const NativeSource>> NativeOptions::Open() const {
  if (!path.empty()) return OpenCheckpointSource(path);
  SyntheticOptions wanted;
  wanted.model = synthetic;
  wanted.layers = layers;
  wanted.seed = seed;
  wanted.dtype = synthetic_dtype;
  return OpenSyntheticSource(wanted);
}

void AddNativeOptions(CLI::App* command, NativeOptions& options, const std::string& path_option,
                      const std::string& synthetic_option) {
  CLI::Option* path = command
                          ->add_option(path_option, options.path,
                                       "Safetensors file, or checkpoint folder with model.safetensors.index.json")
                          ->type_name("FILE|DIR")
                          ->group(kSourceGroup);
  CLI::Option* synthetic = command
                               ->add_option(synthetic_option, options.synthetic,
                                            "Values made on the fly: gemma4_26b_a4b (53.1 GB) or gemma4_tiny")
                               ->type_name("MODEL")
                               ->group(kSourceGroup)
                               ->excludes(path);
  command->add_option("--layers", options.layers, "Synthetic: only the first N layers of the language model")
      ->check(CLI::NonNegativeNumber)
      ->type_name("N")
      ->needs(synthetic)
      ->group(kSourceGroup);
  command->add_option("--seed", options.seed, "Synthetic: other values for every seed; same ones on every machine")
      ->type_name("S")
      ->capture_default_str()
      ->needs(synthetic)
      ->group(kSourceGroup);
  AddDTypeOption(command, "--synthetic-dtype", options.synthetic_dtype,
                 "Synthetic: element type of the floating-point tensors, such as F32 for a trainer with F32 masters",
                 kSourceGroup);
  command->get_option("--synthetic-dtype")->needs(synthetic);
  AddDTypeOption(command, "--dtype", options.dtype,
                 "Cast floating-point tensors to it after conversion (default: no cast)", kConversionGroup);
  command
      ->add_option("--exclude-key-regex", options.exclude_key_regex,
                   "Leave out native tensors whose name matches from its beginning, as Python's re.match, "
                   "such as '.*_extra_state.*'")
      ->type_name("RX")
      ->group(kConversionGroup);
}

}  // namespace refit::cli
