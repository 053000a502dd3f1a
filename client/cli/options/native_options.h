// Options that select native tensors and their conversion. `push` sends these tensors; `pull --verify` compares with
// them.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "client/cli/options/adapter_options.h"
#include "client/native/native_source.h"
#include "refit/dtype.h"

namespace refit::cli {

struct NativeOptions {
  std::string path;       // a safetensors file or a checkpoint folder
  std::string synthetic;  // or a model whose tensors are synthesised
  int layers = -1;
  uint64_t seed = 1;
  uint32_t step = 0;
  double change = 0.01;
  std::optional<DType> synthetic_dtype;

  AdapterChoice adapter;
  std::optional<DType> dtype;
  std::string exclude_key_regex;
  std::string keep_dtype_regex;
  bool cast_family_dtypes = false;

  bool given() const { return !path.empty() || !synthetic.empty(); }
  absl::StatusOr<std::shared_ptr<const NativeSource>> Open() const;
  // INVALID_ARGUMENT if exclude_key_regex is not a valid pattern.
  absl::StatusOr<CheckpointOptions> ReadingOptions() const;
};

// `path_option` and `synthetic_option` are the option names in this command. The two options exclude each other.
void AddNativeOptions(CLI::App* command, NativeOptions& options, const std::string& path_option,
                      const std::string& synthetic_option);

}  // namespace refit::cli
